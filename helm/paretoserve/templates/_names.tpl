{{/* Names and labels. */}}

{{- define "paretoserve.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}{{- .Release.Name -}}{{- else -}}{{- printf "%s-%s" .Release.Name $name -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* What every object of a component is found by; never changes. Takes (list CONTEXT COMPONENT). */}}
{{- define "paretoserve.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ default $.Chart.Name $.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ $.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* What every pod of the release is found by, whatever its component. */}}
{{- define "paretoserve.ours" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* metadata of an object: (list CONTEXT COMPONENT NAME ANNOTATIONS LABELS); the last two are maps. */}}
{{- define "paretoserve.metadata" -}}
{{- $ := index . 0 -}}
{{- $annotations := merge (dict) (index . 3) $.Values.commonAnnotations -}}
{{- $labels := merge (dict) (index . 4) $.Values.commonLabels -}}
{{- $own := fromYaml (include "paretoserve.selector" (list $ (index . 1))) -}}
name: {{ index . 2 | quote }}
namespace: {{ $.Release.Namespace | quote }}
labels:
  helm.sh/chart: {{ printf "%s-%s" $.Chart.Name ($.Chart.Version | replace "+" "_") }}
  app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ $.Release.Service }}
  app.kubernetes.io/part-of: paretoserve
  {{- toYaml (merge $own (omit $labels "helm.sh/chart" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "app.kubernetes.io/part-of")) | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
metadata of a pod template: (list CONTEXT COMPONENT LABELS ANNOTATIONS). Neither version nor chart is
in it: in a Ray pod either would make every upgrade of the chart replace the cluster.
*/}}
{{- define "paretoserve.podMetadata" -}}
{{- $ := index . 0 -}}
{{- $own := fromYaml (include "paretoserve.selector" (list $ (index . 1))) -}}
labels:
  {{- toYaml (merge $own (index . 2) $.Values.commonLabels) | nindent 2 }}
{{- with merge (dict) (index . 3) $.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An image: (list CONTEXT IMAGE). */}}
{{- define "paretoserve.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default (index . 0).Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The account of a component: (list CONTEXT COMPONENT). */}}
{{- define "paretoserve.account" -}}
{{- $ := index . 0 -}}
{{- default (printf "%s-%s" (include "paretoserve.fullname" $) (index . 1)) (get $.Values.serviceAccounts (index . 1)) -}}
{{- end -}}

{{- define "paretoserve.tenantsSecret" -}}
{{- default (printf "%s-tenants" (include "paretoserve.fullname" .)) .Values.tenants.existingSecret -}}
{{- end -}}

{{- define "paretoserve.smokeSecret" -}}
{{- default (printf "%s-smoke" (include "paretoserve.fullname" .)) .Values.smoke.existingSecret -}}
{{- end -}}

{{/* The Service whose addresses are a profile's executors: (list CONTEXT PROFILE). */}}
{{- define "paretoserve.executors" -}}
{{- printf "%s-%s" (include "paretoserve.fullname" (index . 0)) (index . 1) -}}
{{- end -}}
