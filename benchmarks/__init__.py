"""Programs that show speed; each runs by itself. A package, so that a package of that name elsewhere does not hide it."""
