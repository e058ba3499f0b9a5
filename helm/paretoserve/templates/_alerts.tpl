{{/*
Alerts. What pages is a promise that is being broken, over a long and a short window at once, so that it
matters and still goes on: the mean of the gateways, each of which counts its own requests. The rest says why. Each alert is about one release: others may have gateways in
the same namespace.
*/}}
{{- define "paretoserve.alerts" -}}
{{- $gateways := printf "namespace=%q, pod=~%q" .Release.Namespace (printf "%s-gateway-.*" (include "paretoserve.fullname" .)) -}}
{{- $fast := .Values.monitoring.rules.fastBurn -}}
{{- $slow := .Values.monitoring.rules.slowBurn -}}
- name: paretoserve-promises
  rules:
    {{- include "paretoserve.alert" (dict "root" . "name" "ParetoserveBudgetBurnsFast" "severity" "critical" "for" "1m"
        "expr" (printf "avg by (tenant, tier) (paretoserve_error_budget_burn{window=\"5m\", %s}) > %v\nand\navg by (tenant, tier) (paretoserve_error_budget_burn{window=\"1m\", %s}) > %v" $gateways $fast $gateways $fast)
        "summary" "{{ $labels.tenant }} is losing the promise of tier {{ $labels.tier }}"
        "description" "Over 5 minutes and over the last one its requests missed their targets {{ $value | humanize }} times as often as the tier's percentile allows.") | nindent 4 }}
    {{- include "paretoserve.alert" (dict "root" . "name" "ParetoserveBudgetBurnsSlowly" "severity" "warning" "for" "5m"
        "expr" (printf "avg by (tenant, tier) (paretoserve_error_budget_burn{window=\"1h\", %s}) > %v\nand\navg by (tenant, tier) (paretoserve_error_budget_burn{window=\"5m\", %s}) > %v" $gateways $slow $gateways $slow)
        "summary" "{{ $labels.tenant }} gets less of tier {{ $labels.tier }} than promised"
        "description" "Over an hour and over the last 5 minutes its requests missed their targets {{ $value | humanize }} times as often as the tier's percentile allows.") | nindent 4 }}
- name: paretoserve-causes
  rules:
    {{- range fromJsonArray (include "paretoserve.profiles" .) }}
    {{- if gt (int .least) 0 }}
    {{- include "paretoserve.alert" (dict "root" $ "name" "ParetoserveProfileGone" "severity" "critical" "for" "5m"
        "expr" (printf "absent(paretoserve_replica_state{state=\"serving\", profile=%q, %s})" .name $gateways)
        "summary" "no executor of profile {{ $labels.profile }} serves"
        "description" "No gateway knows one that does: look at its pods and their logs.") | nindent 4 }}
    {{- end }}
    {{- end }}
    {{- include "paretoserve.alert" (dict "root" . "name" "ParetoserveReplicaLost" "severity" "warning" "for" "5m"
        "expr" (printf "max by (replica, profile) (paretoserve_replica_state{state=\"lost\", %s}) == 1" $gateways)
        "summary" "executor {{ $labels.replica }} of {{ $labels.profile }} is lost"
        "description" "A gateway cannot reach it and its pod is still there.") | nindent 4 }}
    {{- include "paretoserve.alert" (dict "root" . "name" "ParetoserveRequestsFail" "severity" "warning" "for" "5m"
        "expr" (printf "sum by (tier, reason) (rate(paretoserve_requests_total{outcome=\"failed\", %s}[5m]))\n/ on (tier) group_left\nsum by (tier) (rate(paretoserve_requests_total{%s}[5m])) > 0.01" $gateways $gateways)
        "summary" "requests of tier {{ $labels.tier }} fail: {{ $labels.reason }}"
        "description" "{{ $value | humanizePercentage }} of them, over 5 minutes.") | nindent 4 }}
    {{- include "paretoserve.alert" (dict "root" . "name" "ParetoserveCacheFull" "severity" "warning" "for" "10m"
        "expr" (printf "max by (replica, profile) (paretoserve_replica_kv_used{%s})\n/\nmax by (replica, profile) (paretoserve_replica_kv_limit{%s}) > 0.95" $gateways $gateways)
        "summary" "the KV cache of {{ $labels.replica }} is full"
        "description" "Requests wait or are moved for room: add executors of {{ $labels.profile }} or lower its limits.admit.") | nindent 4 }}
- name: paretoserve-documents
  rules:
    {{- include "paretoserve.alert" (dict "root" . "name" "ParetoserveDocumentsRefused" "severity" "warning" "for" "5m"
        "expr" (printf "max by (pod) (paretoserve_policy_load_error{%s}) == 1" $gateways)
        "summary" "{{ $labels.pod }} refuses the documents as they are"
        "description" "The last good ones are in force. Its log names each mistake.") | nindent 4 }}
    {{- include "paretoserve.alert" (dict "root" . "name" "ParetoserveGatewaysDisagree" "severity" "warning" "for" "10m"
        "expr" (printf "count(count by (hash) (paretoserve_policy_info{%s})) > 1" $gateways)
        "summary" "gateways decide by different documents"
        "description" "A change reaches every node within a minute or two; this has gone on for longer.") | nindent 4 }}
    {{- include "paretoserve.alert" (dict "root" . "name" "ParetoserveCandidateGivenUp" "severity" "warning" "for" "0m"
        "expr" (printf "max by (version, phase) (paretoserve_policy_candidate_info{phase=~\"rolled_back|given_up\", %s}) == 1" $gateways)
        "summary" "candidate policy {{ $labels.version }} is {{ $labels.phase }}"
        "description" "Remove the rollout: each gateway has judged for itself.") | nindent 4 }}
{{- end -}}

{{- define "paretoserve.alert" -}}
{{- $rules := .root.Values.monitoring.rules -}}
- alert: {{ .name }}
  expr: |
    {{- .expr | nindent 4 }}
  for: {{ .for }}
  labels:
    {{- toYaml (merge (dict "severity" .severity) $rules.alertLabels) | nindent 4 }}
  annotations:
    summary: {{ .summary | quote }}
    description: {{ .description | quote }}
    {{- with $rules.runbookURL }}
    runbook_url: {{ printf "%s%s" . $.name | quote }}
    {{- end }}
{{- end -}}
