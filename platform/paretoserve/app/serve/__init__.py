"""The control plane on Ray Serve: what is deployed, how replicas are found, how it comes up.

args        what the application builder takes          (no ray)
documents   a Serve user_config -> Deployment           (no ray)
directory   which replicas exist, in this process       (no ray)
router      Serve's long poll -> directory
discovery   directory -> the gateway's event loop
replica     the Serve deployment around one executor
gateway     the Serve deployment around the gateway
fleet       what stands in its place where gateways run outside of Ray   (no ray)
builder     the application, as a Serve config file names it
up          a local cluster, a config file deployed on it, and all of it gone again
"""
