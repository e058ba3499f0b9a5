{{/* What is known of profiles: settings, order, resources. */}}

{{/*
A map laid over another, key by key, as JSON: (dict "base" MAP "over" MAP). Unlike sprig's merge it
takes false, 0 and "" for the values that they are.
*/}}
{{- define "paretoserve.overlay" -}}
{{- $result := deepCopy .base -}}
{{- range $key, $value := .over -}}
{{- $was := get $result $key -}}
{{- if and (kindIs "map" $value) (kindIs "map" $was) -}}
{{- $_ := set $result $key (fromJson (include "paretoserve.overlay" (dict "base" $was "over" $value))) -}}
{{- else -}}
{{- $_ := set $result $key $value -}}
{{- end -}}
{{- end -}}
{{- toJson $result -}}
{{- end -}}

{{/* Names of profiles in the order of their worker groups, as JSON. */}}
{{- define "paretoserve.profileNames" -}}
{{- $names := list -}}
{{- range .Values.ray.groupOrder -}}
{{- if hasKey $.Values.documents.profiles . -}}{{- $names = append $names . -}}{{- end -}}
{{- end -}}
{{- range keys .Values.documents.profiles | sortAlpha -}}
{{- if not (has . $names) -}}{{- $names = append $names . -}}{{- end -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{/*
One profile, as JSON: (list CONTEXT NAME). Its settings with the defaults filled in, and beside them
`name`, `document`, `onCPU`, `gpus` (a whole number; 0 on CPU) and `least` (executors always there).
*/}}
{{- define "paretoserve.profile" -}}
{{- $ := index . 0 -}}
{{- $name := index . 1 -}}
{{- $document := get $.Values.documents.profiles $name -}}
{{- $settings := fromJson (include "paretoserve.overlay" (dict "base" $.Values.profileDefaults "over" (get $.Values.profiles $name | default dict))) -}}
{{- $_ := set $settings "image" (fromJson (include "paretoserve.overlay" (dict "base" $.Values.images.executor "over" $settings.image))) -}}
{{- $engine := get $document "engine" | toString -}}
{{- $onCPU := or (has $engine (list "emulator" "trtllm-grpc")) (eq (dig "engine_args" "device" "" $document | toString) "cpu") -}}
{{- $_ := set $settings "name" $name -}}
{{- $_ := set $settings "document" $document -}}
{{- $_ := set $settings "onCPU" $onCPU -}}
{{- if and (eq $engine "trtllm") (not $settings.python) -}}{{- $_ := set $settings "python" "/usr/bin/python3" -}}{{- end -}}
{{- $_ := set $settings "gpus" (ternary 0 (get $document "gpus" | int) $onCPU) -}}
{{- $_ := set $settings "least" (ternary $settings.autoscaling.minReplicas $settings.replicas $settings.autoscaling.enabled | int) -}}
{{- toJson $settings -}}
{{- end -}}

{{/* All profiles in order, as a JSON array. */}}
{{- define "paretoserve.profiles" -}}
{{- $all := list -}}
{{- range fromJsonArray (include "paretoserve.profileNames" .) -}}
{{- $all = append $all (fromJson (include "paretoserve.profile" (list $ .))) -}}
{{- end -}}
{{- toJson $all -}}
{{- end -}}

{{/* Seconds that the slowest profile may take to load. */}}
{{- define "paretoserve.slowestStart" -}}
{{- $slowest := 0 -}}
{{- range fromJsonArray (include "paretoserve.profiles" .) -}}
{{- $slowest = max $slowest (int .startTimeoutSeconds) -}}
{{- end -}}
{{- $slowest -}}
{{- end -}}

{{/* The custom Ray resource of which each pod of a profile's group has one, and each executor takes one. */}}
{{- define "paretoserve.slot" -}}profile-{{ . }}{{- end -}}

{{/* One deployment of the Serve application: PROFILE. */}}
{{- define "paretoserve.serveDeployment" -}}
{{- $slot := include "paretoserve.slot" .name -}}
{{- $cpu := ternary (min 1 (get .document "gpus" | ceil)) 1 .onCPU | int -}}
{{- $deployment := dict "name" .name -}}
{{- $policy := dict "policy_function" "paretoserve.app.serve.autoscaling:by_streams" -}}
{{- if .autoscaling.enabled -}}
{{- $_ := set $deployment "autoscaling_config" (dict
      "min_replicas" (int .autoscaling.minReplicas)
      "initial_replicas" (int .replicas)
      "max_replicas" (int .autoscaling.maxReplicas)
      "target_ongoing_requests" .autoscaling.targetStreams
      "upscale_delay_s" .autoscaling.upscaleDelaySeconds
      "downscale_delay_s" .autoscaling.downscaleDelaySeconds
      "policy" $policy) -}}
{{- else if eq (int .replicas) 0 -}}
{{- /* Serve takes no zero for num_replicas. This policy asks for no more while nothing streams. */ -}}
{{- $_ := set $deployment "autoscaling_config" (dict "min_replicas" 0 "initial_replicas" 0 "max_replicas" 1 "policy" $policy) -}}
{{- else -}}
{{- $_ := set $deployment "num_replicas" (int .replicas) -}}
{{- end -}}
{{- $actor := dict "num_cpus" $cpu "resources" (dict $slot 1) -}}
{{- if gt (int .gpus) 0 -}}
{{- $_ := set $actor "num_gpus" (int .gpus) -}}
{{- $_ := set $deployment "placement_group_bundles" (list (dict "CPU" $cpu "GPU" (int .gpus) $slot 1)) -}}
{{- $_ := set $deployment "placement_group_strategy" "STRICT_PACK" -}}
{{- end -}}
{{- $_ := set $deployment "ray_actor_options" $actor -}}
{{- toJson $deployment -}}
{{- end -}}

{{/* The Serve config, which the operator hands to Ray. */}}
{{- define "paretoserve.serveConfig" -}}
{{- $deployments := list -}}
{{- $executors := dict -}}
{{- range fromJsonArray (include "paretoserve.profiles" .) -}}
{{- $deployments = append $deployments (fromJson (include "paretoserve.serveDeployment" .)) -}}
{{- $_ := set $executors .name (dict "python" .python "env" .engineEnv "start_timeout_s" .startTimeoutSeconds "stall_after_s" .stallAfterSeconds) -}}
{{- end -}}
{{- $args := dict
      "deployment" "/etc/paretoserve"
      "gateway" false
      "executor_port" (int .Values.ray.executorPort)
      "drain_grace_s" .Values.ray.drainGraceSeconds
      "settle_s" .Values.ray.settleSeconds
      "executors" $executors -}}
proxy_location: Disabled
http_options:
  host: 127.0.0.1
applications:
  - name: paretoserve
    route_prefix: null
    import_path: paretoserve.app.serve.builder:build
    args:
      {{- toYaml $args | nindent 6 }}
    deployments:
      {{- toYaml $deployments | nindent 6 }}
{{- end -}}
