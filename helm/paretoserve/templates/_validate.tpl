{{/*
What is wrong with the values beyond what values.schema.json can say, all of it at once. Each line says
what, where, and what would be right. The documents' own meaning is `paretoserve check`'s matter; here
is what only Kubernetes, the operator or Ray would find out, after the install.
*/}}
{{- define "paretoserve.validate" -}}
{{- $problems := concat
      (fromJsonArray (include "paretoserve.problems.moved" .))
      (fromJsonArray (include "paretoserve.problems.names" .))
      (fromJsonArray (include "paretoserve.problems.documents" .))
      (fromJsonArray (include "paretoserve.problems.profiles" .))
      (fromJsonArray (include "paretoserve.problems.cluster" .))
      (fromJsonArray (include "paretoserve.problems.gateway" .))
      (fromJsonArray (include "paretoserve.problems.secrets" .)) -}}
{{- if $problems -}}
{{- fail (printf "\n\nThe values cannot be installed:\n  - %s\n" (join "\n  - " $problems)) -}}
{{- end -}}
{{- end -}}

{{- define "paretoserve.problems.moved" -}}
{{- $problems := list -}}
{{- $moved := .Files.Get "moved.yaml" | fromYaml -}}
{{- range $key := keys $moved | sortAlpha -}}
{{- if hasKey $.Values $key -}}
{{- $problems = append $problems (printf "%s is no value of this chart; what is meant may be %s" $key (get $moved $key)) -}}
{{- end -}}
{{- end -}}
{{- if hasKey .Values.documents "candidate" -}}
{{- $problems = append $problems "documents.candidate is called documents.policyNext, as its file is policy.next.yaml" -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{- define "paretoserve.problems.names" -}}
{{- $problems := list -}}
{{- $name := include "paretoserve.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- $problems = append $problems (printf "the RayService would be called %q, which the operator refuses: a-z, 0-9 and hyphens, beginning with a letter; set fullnameOverride" $name) -}}
{{- end -}}
{{- if gt (len $name) 47 -}}
{{- $problems = append $problems (printf "the RayService would be called %q, %d characters long, and the operator takes at most 47; set fullnameOverride" $name (len $name)) -}}
{{- end -}}
{{- range fromJsonArray (include "paretoserve.profileNames" .) -}}
{{- $service := include "paretoserve.executors" (list $ .) -}}
{{- if gt (len $service) 63 -}}
{{- $problems = append $problems (printf "profile %s: its Service would be called %q, %d characters long, and Kubernetes takes at most 63; shorten fullnameOverride or the profile's name" . $service (len $service)) -}}
{{- end -}}
{{- /* headgroup is KubeRay's name of the head's group; NAME-head-svc and NAME-serve-svc are Services of its own. */ -}}
{{- if has . (list "documents" "executor" "fleet" "gateway" "head" "head-svc" "headgroup" "parity" "profiles" "serve-svc" "smoke" "tenants" "tiers") -}}
{{- $problems = append $problems (printf "profile %s: that name is taken by another object or deployment of the chart or the operator; rename the profile" .) -}}
{{- end -}}
{{- if regexMatch "gpu$" . -}}
{{- $problems = append $problems (printf "profile %s: its slot in Ray would be the resource profile-%s, which the operator takes for a number of GPUs, as it does with every resource whose name ends in gpu; rename the profile" . .) -}}
{{- end -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{- define "paretoserve.problems.documents" -}}
{{- $problems := list -}}
{{- $documents := .Values.documents -}}
{{- range $kind := list "models" "policy" "profiles" "tiers" -}}
{{- if not (get $documents $kind) -}}
{{- $problems = append $problems (printf "documents.%s is empty; `paretoserve values DIR` prints the documents of a deployment folder, to be given to Helm with -f" $kind) -}}
{{- end -}}
{{- end -}}
{{- range $kind := list "profiles" "tiers" "tenants" -}}
{{- range $name, $document := get $documents $kind -}}
{{- $said := get $document "name" -}}
{{- if ne (toString $said) $name -}}
{{- $problems = append $problems (printf "documents.%s.%s: the document in it is called %q; the key and `name` must be the same" $kind $name (toString $said)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $models := list -}}
{{- range dig "models" list $documents.models -}}
{{- $models = append $models .name -}}
{{- if not (hasPrefix "/" .path) -}}
{{- $problems = append $problems (printf "documents.models: the path of model %s is %q; write the absolute path that it has in the pods" .name .path) -}}
{{- else if and $.Values.modelVolume.mountPath (not (hasPrefix (printf "%s/" (trimSuffix "/" $.Values.modelVolume.mountPath)) .path)) -}}
{{- $problems = append $problems (printf "documents.models: the path of model %s is %q, which is not in modelVolume.mountPath, %q; make them agree, or set mountPath to \"\" if the images hold the models" .name .path $.Values.modelVolume.mountPath) -}}
{{- end -}}
{{- end -}}
{{- $profiles := keys $documents.profiles | sortAlpha -}}
{{- range $name, $profile := $documents.profiles -}}
{{- if not (has (get $profile "model") $models) -}}
{{- $problems = append $problems (printf "documents.profiles.%s: names model %q, which documents.models has not; it has %s" $name (toString (get $profile "model")) (join ", " $models)) -}}
{{- end -}}
{{- end -}}
{{- range $name, $tier := $documents.tiers -}}
{{- range dig "profiles" list $tier -}}
{{- if not (has . $profiles) -}}
{{- $problems = append $problems (printf "documents.tiers.%s: names profile %q, which is not there; profiles are %s" $name . (join ", " $profiles)) -}}
{{- end -}}
{{- end -}}
{{- with get $tier "fallback" -}}
{{- if not (hasKey $documents.tiers .) -}}
{{- $problems = append $problems (printf "documents.tiers.%s: falls back to tier %q, which is not there; tiers are %s" $name . (keys $documents.tiers | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $tenant := $documents.tenants -}}
{{- range dig "tiers" list $tenant -}}
{{- if not (hasKey $documents.tiers .) -}}
{{- $problems = append $problems (printf "documents.tenants.%s: names tier %q, which is not there; tiers are %s" $name . (keys $documents.tiers | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $documents.rollout (not $documents.policyNext) -}}
{{- $problems = append $problems "documents.rollout has no candidate to try; write the policy to documents.policyNext" -}}
{{- end -}}
{{- range $kind := list "profiles" "tiers" "parity" "tenants" -}}
{{- if gt (len (toJson (get $documents $kind))) 900000 -}}
{{- $problems = append $problems (printf "documents.%s is %d bytes; an object of Kubernetes holds 1 MiB" $kind (len (toJson (get $documents $kind)))) -}}
{{- end -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{- define "paretoserve.problems.profiles" -}}
{{- $problems := list -}}
{{- $names := keys .Values.documents.profiles | sortAlpha -}}
{{- range $name, $_ := .Values.profiles -}}
{{- if not (has $name $names) -}}
{{- $problems = append $problems (printf "profiles.%s: there is no such profile; documents.profiles has %s" $name (join ", " $names)) -}}
{{- end -}}
{{- end -}}
{{- range .Values.ray.groupOrder -}}
{{- if not (has . $names) -}}
{{- $problems = append $problems (printf "ray.groupOrder names %q, which is no profile; profiles are %s" . (join ", " $names)) -}}
{{- end -}}
{{- end -}}
{{- range $profile := fromJsonArray (include "paretoserve.profiles" .) -}}
{{- $where := printf "profile %s" $profile.name -}}
{{- if not $profile.onCPU -}}
{{- $gpus := get $profile.document "gpus" -}}
{{- if ne (toString $gpus) (toString (int $gpus)) -}}
{{- $problems = append $problems (printf "%s: takes %v GPUs, and Kubernetes gives whole ones; make `gpus` in its document a whole number" $where $gpus) -}}
{{- end -}}
{{- if gt (int $gpus) (int $profile.gpu.perNode) -}}
{{- $problems = append $problems (printf "%s: takes %d GPUs, and a node has %d (profiles.%s.gpu.perNode); an executor cannot span nodes" $where (int $gpus) (int $profile.gpu.perNode) $profile.name) -}}
{{- end -}}
{{- end -}}
{{- if $profile.autoscaling.enabled -}}
{{- if not $.Values.ray.autoscaler.enabled -}}
{{- $problems = append $problems (printf "%s: autoscaling needs pods that come and go; set ray.autoscaler.enabled" $where) -}}
{{- end -}}
{{- if or (lt (int $profile.replicas) (int $profile.autoscaling.minReplicas)) (gt (int $profile.replicas) (int $profile.autoscaling.maxReplicas)) -}}
{{- $problems = append $problems (printf "%s: replicas is %d, which is not between autoscaling.minReplicas, %d, and maxReplicas, %d" $where (int $profile.replicas) (int $profile.autoscaling.minReplicas) (int $profile.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- $most := ternary $profile.autoscaling.maxReplicas $profile.replicas $profile.autoscaling.enabled | int -}}
{{- if and $.Values.ray.autoscaler.enabled (gt $most (int $profile.maxPods)) -}}
{{- $problems = append $problems (printf "%s: may have %d executors and only %d pods (profiles.%s.maxPods); raise maxPods" $where $most (int $profile.maxPods) $profile.name) -}}
{{- end -}}
{{- if and $profile.gpu.resourceClaimTemplate $profile.onCPU -}}
{{- $problems = append $problems (printf "%s: runs on CPU and claims devices; remove gpu.resourceClaimTemplate" $where) -}}
{{- end -}}
{{- $problems = concat $problems (fromJsonArray (include "paretoserve.problems.volumes" (dict "where" $where "pod" $profile "paths" (list "/dev/shm") "names" (list "shared-mem")))) -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{/* Volumes of a pod that the chart's own are in the way of: (dict "where" "pod" "paths" "names"). */}}
{{- define "paretoserve.problems.volumes" -}}
{{- $problems := list -}}
{{- $where := .where -}}
{{- $paths := .paths -}}
{{- $names := concat .names (list "documents" "models" "parity" "profiles") -}}
{{- range .pod.extraVolumeMounts -}}
{{- if or (has .mountPath $paths) (eq .mountPath "/etc/paretoserve") (hasPrefix "/etc/paretoserve/" .mountPath) -}}
{{- $problems = append $problems (printf "%s: extraVolumeMounts has %q, where the chart mounts something itself; choose another path" $where .mountPath) -}}
{{- end -}}
{{- end -}}
{{- range .pod.extraVolumes -}}
{{- if has .name $names -}}
{{- $problems = append $problems (printf "%s: extraVolumes has %q, which is a volume of the chart; choose another name" $where .name) -}}
{{- end -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{- define "paretoserve.problems.cluster" -}}
{{- $problems := list -}}
{{- $ray := .Values.ray -}}
{{- $port := int $ray.executorPort -}}
{{- if or (has $port (list 6379 8080 8265 10001)) (and (ge $port 10002) (le $port 19999)) (and (ge $port 32768) (le $port 60999)) -}}
{{- $problems = append $problems (printf "ray.executorPort is %d, which another process of the pod may have: Ray uses 6379, 8080, 8265 and 10001 and gives out 10002 to 19999, Linux 32768 to 60999; choose another, such as 9500" $port) -}}
{{- end -}}
{{- $strategies := list "NewCluster" "NewClusterWithIncrementalUpgrade" "None" -}}
{{- if not (has $ray.upgrade.strategy $strategies) -}}
{{- $problems = append $problems (printf "ray.upgrade.strategy is %q; the operator carries out %s, and refuses any other after the install" $ray.upgrade.strategy (join ", " $strategies)) -}}
{{- end -}}
{{- if eq $ray.upgrade.strategy "NewClusterWithIncrementalUpgrade" -}}
{{- if not $ray.autoscaler.enabled -}}
{{- $problems = append $problems "ray.upgrade.strategy NewClusterWithIncrementalUpgrade needs ray.autoscaler.enabled: the operator refuses it without" -}}
{{- end -}}
{{- if not $ray.upgrade.incremental.gatewayClassName -}}
{{- $problems = append $problems "ray.upgrade.strategy NewClusterWithIncrementalUpgrade needs ray.upgrade.incremental.gatewayClassName: the operator refuses it without" -}}
{{- end -}}
{{- if gt (int $ray.upgrade.incremental.stepSizePercent) (int $ray.upgrade.incremental.maxSurgePercent) -}}
{{- $problems = append $problems (printf "ray.upgrade.incremental.stepSizePercent is %d, more than maxSurgePercent, %d; the operator refuses that" (int $ray.upgrade.incremental.stepSizePercent) (int $ray.upgrade.incremental.maxSurgePercent)) -}}
{{- end -}}
{{- end -}}
{{- if and $ray.faultTolerance.enabled (not $ray.faultTolerance.redisAddress) -}}
{{- $problems = append $problems "ray.faultTolerance is enabled without redisAddress; write HOST:PORT of a Redis that outlives the head" -}}
{{- end -}}
{{- if regexMatch "://[^/]*@" $ray.faultTolerance.redisAddress -}}
{{- $problems = append $problems "ray.faultTolerance.redisAddress holds a user or a password, which everybody could read in the RayService; put them into a Secret and name it in existingSecret" -}}
{{- end -}}
{{- if and $ray.faultTolerance.usernameKey (not $ray.faultTolerance.existingSecret) -}}
{{- $problems = append $problems "ray.faultTolerance.usernameKey is a key of existingSecret, which is empty" -}}
{{- end -}}
{{- $volume := .Values.modelVolume -}}
{{- if $volume.mountPath -}}
{{- $sources := list -}}
{{- if $volume.existingClaim -}}{{- $sources = append $sources "existingClaim" -}}{{- end -}}
{{- if $volume.hostPath -}}{{- $sources = append $sources "hostPath" -}}{{- end -}}
{{- if $volume.create.enabled -}}{{- $sources = append $sources "create.enabled" -}}{{- end -}}
{{- if ne (len $sources) 1 -}}
{{- $problems = append $problems (printf "modelVolume: set one of existingClaim, hostPath and create.enabled (%s), or mountPath to \"\" if the images hold the models" (ternary "none is set" (printf "set are %s" (join " and " $sources)) (empty $sources))) -}}
{{- end -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{- define "paretoserve.problems.gateway" -}}
{{- $problems := list -}}
{{- $gateway := .Values.gateway -}}
{{- $problems = concat $problems (fromJsonArray (include "paretoserve.problems.volumes" (dict "where" "gateway" "pod" $gateway "paths" (list "/tmp") "names" (list "tenants" "tiers" "tmp")))) -}}
{{- if lt (list (int $gateway.httpPort) (int $gateway.grpcPort) (int $gateway.adminPort) | uniq | len) 3 -}}
{{- $problems = append $problems (printf "gateway.httpPort, grpcPort and adminPort are %d, %d and %d; they are three servers" (int $gateway.httpPort) (int $gateway.grpcPort) (int $gateway.adminPort)) -}}
{{- end -}}
{{- if and (ne $gateway.autoscaling.type "none") (lt (int $gateway.autoscaling.maxReplicas) (int $gateway.autoscaling.minReplicas)) -}}
{{- $problems = append $problems (printf "gateway.autoscaling.maxReplicas is %d, less than minReplicas, %d" (int $gateway.autoscaling.maxReplicas) (int $gateway.autoscaling.minReplicas)) -}}
{{- end -}}
{{- if and (eq $gateway.autoscaling.type "hpa") (not (dig "requests" "cpu" "" $gateway.resources)) -}}
{{- $problems = append $problems "gateway.autoscaling.type is hpa, which reckons from gateway.resources.requests.cpu; set it" -}}
{{- end -}}
{{- if and (eq $gateway.autoscaling.type "keda") (not $gateway.autoscaling.keda.prometheusAddress) -}}
{{- $problems = append $problems "gateway.autoscaling.type is keda without gateway.autoscaling.keda.prometheusAddress; write the URL of Prometheus" -}}
{{- end -}}
{{- $metrics := eq (toString (get .Values.documents.telemetry "metrics")) "prometheus" -}}
{{- if and (not $metrics) (or .Values.monitoring.podMonitor.enabled .Values.monitoring.rules.enabled .Values.monitoring.dashboards.enabled (eq $gateway.autoscaling.type "keda")) -}}
{{- $problems = append $problems "monitoring, or gateway.autoscaling.type keda, needs metrics, which are off; set documents.telemetry.metrics to prometheus" -}}
{{- end -}}
{{- range $kind := list "http" "grpc" -}}
{{- $route := get $.Values.routes $kind -}}
{{- if and $route.enabled (not $route.parentRefs) -}}
{{- $problems = append $problems (printf "routes.%s is enabled without parentRefs; name the Gateway, as [{name: GATEWAY}]" $kind) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.inferencePool.enabled (not .Values.inferencePool.endpointPicker) -}}
{{- $problems = append $problems "inferencePool is enabled without endpointPicker, which an InferencePool must have; write the name of its Service" -}}
{{- end -}}
{{- if not .Values.serviceAccounts.create -}}
{{- range list "gateway" "head" "executor" -}}
{{- if not (get $.Values.serviceAccounts .) -}}
{{- $problems = append $problems (printf "serviceAccounts.create is false and serviceAccounts.%s is empty; name an account that is there" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.smoke.enabled -}}
{{- with .Values.smoke.tier -}}
{{- if not (hasKey $.Values.documents.tiers .) -}}
{{- $problems = append $problems (printf "smoke.tier is %q, which is not there; tiers are %s" . (keys $.Values.documents.tiers | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{/* Where a secret would become readable, or somebody would be let in by mistake. */}}
{{- define "paretoserve.problems.secrets" -}}
{{- $problems := list -}}
{{- if and .Values.tenants.existingSecret .Values.documents.tenants -}}
{{- $problems = append $problems "tenants.existingSecret and documents.tenants are both set; only one of them can say who the tenants are" -}}
{{- end -}}
{{- if not (or .Values.tenants.existingSecret .Values.documents.tenants) -}}
{{- $problems = append $problems "there are no tenants, so nobody could call; set documents.tenants or tenants.existingSecret" -}}
{{- end -}}
{{- if and .Values.smoke.enabled (hasKey .Values.documents.tenants "smoke") -}}
{{- $problems = append $problems "documents.tenants.smoke has the name of the tenant of `helm test`; rename it or set smoke.enabled to false" -}}
{{- end -}}
{{- $environments := dict "gateway.extraEnv" .Values.gateway.extraEnv "ray.head.extraEnv" .Values.ray.head.extraEnv -}}
{{- range $profile := fromJsonArray (include "paretoserve.profiles" .) -}}
{{- $_ := set $environments (printf "profiles.%s.extraEnv" $profile.name) $profile.extraEnv -}}
{{- range $name, $_ := $profile.engineEnv -}}
{{- if regexMatch "(?i)(^|_)(token|secret|passwo?r?d|credentials?|api_?key|private_?key|access_?key)$" $name -}}
{{- $problems = append $problems (printf "profiles.%s.engineEnv sets %s, which everybody could read in the RayService; the engine inherits the pod's environment, so take it from a Secret with extraEnv or extraEnvFrom" $profile.name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $where := keys $environments | sortAlpha -}}
{{- range get $environments $where -}}
{{- if and (hasKey . "value") (regexMatch "(?i)(^|_)(token|secret|passwo?r?d|credentials?|api_?key|private_?key|access_?key)$" .name) -}}
{{- $problems = append $problems (printf "%s sets %s to a value that everybody could read; use valueFrom.secretKeyRef" $where .name) -}}
{{- end -}}
{{- if has .name (list "REDIS_PASSWORD" "REDIS_USERNAME" "RAY_REDIS_ADDRESS" "RAY_enable_autoscaler_v2") -}}
{{- $problems = append $problems (printf "%s sets %s, which the operator sets itself and refuses from elsewhere; use ray.faultTolerance and ray.autoscaler" $where .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}
