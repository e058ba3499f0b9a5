"""What is made from the chart and for it.

comments    values.yaml's comments: the one place where a value is described
types       what a value may be
schema      values.schema.json
readme      the table of values in the chart's README
dashboards  Grafana dashboards
binary      the Helm that renders
manifests   k8s/
generate    all of it, written or checked
"""
