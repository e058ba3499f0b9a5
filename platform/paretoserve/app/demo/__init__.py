"""The demo: measure both profiles here, replay a real trace on them, show what the choice was worth.

plan       the document that says what is measured and replayed
trace      rows of a request trace -> arrivals
prompts    a text -> prompts of a wanted length
workload   arrivals, prompts, tenants -> the requests to send      (pure)
sweep      one executor at one batch -> samples
curves     samples -> medians, latency curves                       (pure)
replay     the requests, sent open loop through the SDK -> records
watch      executor states during the replay -> samples
analysis   samples and records -> results.json                      (pure)
decisions  which decisions explain most, and as tables              (pure)
report     results -> text                                          (pure)
picture    results -> frontier.png
progress   what the terminal shows meanwhile
platform   Ray Serve up, a new curve in force, all of it gone
run        all of it in order
"""
