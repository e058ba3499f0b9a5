"""The demo: measure both profiles here, replay a real trace on them, show what the choice was worth.

plan       the document that says what is measured and replayed
trace      rows of a request trace -> arrivals
prompts    a text -> prompts of a wanted length
workload   arrivals, prompts, tenants -> the requests to send      (pure)
links      executor links to measure with
sweep      one executor at one batch -> samples
curves     samples -> medians, ratios, latency curves               (pure)
documents  a deployment folder with the measured curves
replay     the requests, sent open loop through the SDK -> records
watch      executor states during the replay -> samples
board      what has happened so far in a replay                     (pure)
progress   what the terminal shows meanwhile
machine    what it was measured on
analysis   samples and records -> results.json                      (pure)
decisions  which decisions explain most, and as tables              (pure)
report     results -> text                                          (pure)
picture    results -> frontier.png
platform   Ray Serve up, new curves in force
demo       the steps
run        the steps in order, all of it gone at the end; the command's options
"""
