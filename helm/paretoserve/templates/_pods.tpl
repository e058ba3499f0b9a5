{{/* What pods have in common. */}}

{{/* Security of a pod, by the restricted standard; user ids are the image's. */}}
{{- define "paretoserve.podSecurity" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- if .Values.security.fsGroup }}
fsGroup: {{ int .Values.security.fsGroup }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
{{- end -}}

{{/* Security of a container, as YAML: (list READ-ONLY-ROOT CAPABILITIES). */}}
{{- define "paretoserve.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ index . 0 }}
runAsNonRoot: true
capabilities:
  drop: [ALL]
  {{- with index . 1 }}
  add: {{ toJson . }}
  {{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/*
The deployment folder. Each of its folders is a volume of its own, mounted whole inside
/etc/paretoserve: no `subPath`, which the kubelet would never update, and no `items`, which would put
each document's name into the pod's spec, so that a new tier replaced the Ray cluster. The kubelet
makes the mount points in the outer volume (pkg/volume/util/nested_volumes.go).
*/}}
{{- define "paretoserve.folderMounts" -}}
- name: documents
  mountPath: /etc/paretoserve
  readOnly: true
{{- range . }}
- name: {{ . }}
  mountPath: /etc/paretoserve/{{ . }}
  readOnly: true
{{- end }}
{{- end -}}

{{/* (list CONTEXT FOLDERS) */}}
{{- define "paretoserve.folderVolumes" -}}
{{- $name := include "paretoserve.fullname" (index . 0) -}}
- name: documents
  configMap:
    name: {{ printf "%s-documents" $name | quote }}
{{- range index . 1 }}
- name: {{ . }}
  configMap:
    name: {{ printf "%s-%s" $name . | quote }}
{{- end }}
{{- end -}}

{{/* What executors, and Ray's head, read of the folder. */}}
{{- define "paretoserve.rayMounts" -}}
{{- include "paretoserve.folderMounts" (list "profiles" "parity") -}}
{{- end -}}

{{- define "paretoserve.rayVolumes" -}}
{{- include "paretoserve.folderVolumes" (list . (list "profiles" "parity")) -}}
{{- end -}}

{{/* What gateways read: all of it. The tenants' volume is their own. */}}
{{- define "paretoserve.gatewayMounts" -}}
{{- include "paretoserve.folderMounts" (list "profiles" "parity" "tiers" "tenants") -}}
{{- end -}}

{{- define "paretoserve.gatewayVolumes" -}}
{{- include "paretoserve.folderVolumes" (list . (list "profiles" "parity" "tiers")) -}}
{{- end -}}

{{/* The volume of models: (list CONTEXT SETTINGS); nothing where models are in the images. */}}
{{- define "paretoserve.modelVolume" -}}
{{- $ := index . 0 -}}
{{- $volume := index . 1 -}}
{{- if $volume.mountPath -}}
- name: models
  {{- if $volume.hostPath }}
  hostPath:
    path: {{ $volume.hostPath | quote }}
    type: Directory
  {{- else }}
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-models" (include "paretoserve.fullname" $)) $volume.existingClaim | quote }}
    readOnly: true
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "paretoserve.modelMount" -}}
{{- with .mountPath -}}
- name: models
  mountPath: {{ . | quote }}
  readOnly: true
{{- end -}}
{{- end -}}

{{/* Where a pod may run: SETTINGS. */}}
{{- define "paretoserve.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Spread over nodes: (list HOW LABELS), the labels as YAML. */}}
{{- define "paretoserve.spread" -}}
{{- if ne (index . 0) "Off" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: {{ index . 0 }}
    labelSelector:
      matchLabels:
        {{- index . 1 | nindent 8 }}
{{- end -}}
{{- end -}}

{{/* Secrets to pull images with. */}}
{{- define "paretoserve.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
