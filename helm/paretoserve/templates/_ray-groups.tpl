{{/* The head's group and a profile's worker group. */}}

{{- define "paretoserve.headGroup" -}}
{{- $head := .Values.ray.head -}}
{{- $grace := int .Values.ray.drainGraceSeconds -}}
rayStartParams:
  # Controllers need no CPU, and nothing else may come to the head.
  num-cpus: "0"
  object-store-memory: {{ int64 .Values.ray.objectStoreMemory | quote }}
template:
  metadata:
    {{- include "paretoserve.podMetadata" (list . "head" $head.podLabels $head.podAnnotations) | nindent 4 }}
  spec:
    serviceAccountName: {{ include "paretoserve.account" (list . "head") | quote }}
    automountServiceAccountToken: {{ .Values.ray.autoscaler.enabled }}
    enableServiceLinks: false
    {{- with include "paretoserve.pullSecrets" . | trim }}{{ nindent 4 . }}{{ end }}
    {{- with include "paretoserve.scheduling" $head | trim }}{{ nindent 4 . }}{{ end }}
    securityContext:
      {{- include "paretoserve.podSecurity" . | nindent 6 }}
    terminationGracePeriodSeconds: {{ add $grace 30 }}
    containers:
      - name: ray-head
        image: {{ include "paretoserve.image" (list . .Values.images.head) | quote }}
        imagePullPolicy: {{ .Values.images.head.pullPolicy }}
        ports:
          - {name: gcs-server, containerPort: 6379}
          - {name: dashboard, containerPort: 8265}
          - {name: client, containerPort: 10001}
          - {name: metrics, containerPort: 8080}
          # The head listens on none; the operator takes from here what it selects on executors.
          - {name: serve, containerPort: {{ int .Values.ray.executorPort }}}
        {{- with $head.extraEnv }}
        env:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        resources:
          {{- toYaml $head.resources | nindent 10 }}
        {{- if not .Values.ray.faultTolerance.enabled }}
        lifecycle:
          preStop:
            exec:
              # Without its state in Redis a head takes the executors with it: let them drain first.
              command: [sleep, {{ $grace | quote }}]
        {{- end }}
        securityContext:
          {{- include "paretoserve.containerSecurity" (list false list) | nindent 10 }}
        volumeMounts:
          {{- include "paretoserve.rayMounts" . | nindent 10 }}
    volumes:
      {{- include "paretoserve.rayVolumes" . | nindent 6 }}
{{- end -}}

{{/* (list CONTEXT PROFILE) */}}
{{- define "paretoserve.workerGroup" -}}
{{- $ := index . 0 -}}
{{- $profile := index . 1 -}}
{{- $grace := int $.Values.ray.drainGraceSeconds -}}
{{- $port := int $.Values.ray.executorPort -}}
{{- $autoscaler := $.Values.ray.autoscaler.enabled -}}
{{- $claims := and $profile.gpu.resourceClaimTemplate (gt (int $profile.gpus) 0) -}}
{{- $whole := dict "memory" $profile.memory -}}
{{- if and (gt (int $profile.gpus) 0) (not $claims) -}}{{- $_ := set $whole $profile.gpu.resource (int $profile.gpus) -}}{{- end -}}
{{- $whole = merge $whole $profile.extraResources -}}
{{- $selector := deepCopy $profile.nodeSelector -}}
{{- if and $profile.gpu.product (gt (int $profile.gpus) 0) -}}{{- $_ := set $selector "nvidia.com/gpu.product" $profile.gpu.product -}}{{- end -}}
{{- $labels := merge (dict "paretoserve/profile" $profile.name) $profile.podLabels -}}
groupName: {{ $profile.name | quote }}
replicas: {{ int $profile.replicas }}
# With the autoscaler there are the pods that Serve has executors for. The operator changes neither
# bound in a running cluster, and begins an incremental upgrade with the lower one.
minReplicas: {{ ternary 0 $profile.replicas $autoscaler | int }}
maxReplicas: {{ ternary $profile.maxPods $profile.replicas $autoscaler | int }}
resources:
  CPU: "1"
  {{- if gt (int $profile.gpus) 0 }}
  GPU: {{ int $profile.gpus | quote }}
  {{- end }}
  {{ include "paretoserve.slot" $profile.name }}: "1"
rayStartParams:
  object-store-memory: {{ int64 $.Values.ray.objectStoreMemory | quote }}
template:
  metadata:
    {{- include "paretoserve.podMetadata" (list $ "executor" $labels $profile.podAnnotations) | nindent 4 }}
  spec:
    serviceAccountName: {{ include "paretoserve.account" (list $ "executor") | quote }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    {{- with include "paretoserve.pullSecrets" $ | trim }}{{ nindent 4 . }}{{ end }}
    {{- with include "paretoserve.scheduling" (merge (dict "nodeSelector" $selector) $profile) | trim }}{{ nindent 4 . }}{{ end }}
    {{- $same := printf "%s\nparetoserve/profile: %q" (include "paretoserve.selector" (list $ "executor")) $profile.name }}
    {{- with include "paretoserve.spread" (list $profile.spread $same) | trim }}{{ nindent 4 . }}{{ end }}
    {{- with $profile.runtimeClassName }}
    runtimeClassName: {{ . | quote }}
    {{- end }}
    securityContext:
      {{- include "paretoserve.podSecurity" $ | nindent 6 }}
    terminationGracePeriodSeconds: {{ add $grace 30 }}
    {{- if $claims }}
    resourceClaims:
      - name: gpus
        resourceClaimTemplateName: {{ $profile.gpu.resourceClaimTemplate | quote }}
    {{- end }}
    containers:
      - name: ray-worker
        image: {{ include "paretoserve.image" (list $ $profile.image) | quote }}
        imagePullPolicy: {{ $profile.image.pullPolicy }}
        ports:
          - {name: serve, containerPort: {{ $port }}}
          - {name: metrics, containerPort: 8080}
        env:
          - name: POD_IP
            valueFrom:
              fieldRef:
                fieldPath: status.podIP
          {{- with $profile.extraEnv }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
        {{- with $profile.extraEnvFrom }}
        envFrom:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        resources:
          {{- if $claims }}
          claims:
            - name: gpus
          {{- end }}
          requests:
            {{- toYaml (merge (dict "cpu" $profile.cpu) $whole) | nindent 12 }}
          limits:
            {{- toYaml $whole | nindent 12 }}
        # Ready is an executor that serves. The operator's own probe would ask Serve's proxy, which is
        # off. Its liveness probe, of the raylet, is right and is left to it.
        readinessProbe:
          grpc:
            port: {{ $port }}
          initialDelaySeconds: 10
          periodSeconds: 5
          timeoutSeconds: 5
          failureThreshold: 3
        lifecycle:
          preStop:
            exec:
              command:
                - bash
                - -c
                - paretoserve drain "$POD_IP:{{ $port }}" --grace {{ $grace }}
        securityContext:
          {{- include "paretoserve.containerSecurity" (list false $profile.addCapabilities) | nindent 10 }}
        volumeMounts:
          {{- include "paretoserve.rayMounts" $ | nindent 10 }}
          - name: shared-mem
            mountPath: /dev/shm
          {{- with include "paretoserve.modelMount" $.Values.modelVolume | trim }}{{ nindent 10 . }}{{ end }}
          {{- with $profile.extraVolumeMounts }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
    volumes:
      {{- include "paretoserve.rayVolumes" $ | nindent 6 }}
      - name: shared-mem
        emptyDir:
          medium: Memory
          sizeLimit: {{ $profile.sharedMemory | toJson }}
      {{- with include "paretoserve.modelVolume" (list $ $.Values.modelVolume) | trim }}{{ nindent 6 . }}{{ end }}
      {{- with $profile.extraVolumes }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end -}}
