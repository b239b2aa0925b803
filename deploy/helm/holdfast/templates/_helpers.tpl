{{- define "holdfast.name" -}}
{{- if contains "holdfast" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-holdfast" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "holdfast.selector" -}}
app.kubernetes.io/name: holdfast
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "holdfast.labels" -}}
{{ include "holdfast.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "holdfast.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "holdfast.name" .) -}}
{{- end }}

{{- define "holdfast.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* Name and number of each port for clients, as JSON. */}}
{{- define "holdfast.ports" -}}
{{- $ports := dict }}
{{- if .Values.config }}
{{- $ports = .Values.ports }}
{{- else }}
{{- range .Values.clusters }}{{ $_ := set $ports .name .port }}{{ end }}
{{- end }}
{{- toJson $ports }}
{{- end }}

{{/* The ports' numbers, each once, in a fixed order, as JSON. */}}
{{- define "holdfast.portNumbers" -}}
{{- $numbers := list }}
{{- range $name, $port := include "holdfast.ports" . | fromJson }}{{ $numbers = append $numbers (int $port) }}{{ end }}
{{- $numbers | uniq | toJson }}
{{- end }}

{{/* A port's name in a pod: at most 15 characters, none but letters, digits and "-". */}}
{{- define "holdfast.portName" -}}
{{- printf "mysql-%d" (int .) -}}
{{- end }}

{{/* Secrets to mount, each once, as JSON. */}}
{{- define "holdfast.secrets" -}}
{{- $names := .Values.secrets | default list }}
{{- if not .Values.config }}
{{- range .Values.clusters }}
{{- $names = append $names .account.secretName }}
{{- if .caSecretName }}{{ $names = append $names .caSecretName }}{{ end }}
{{- end }}
{{- end }}
{{- with include "holdfast.tlsSecret" . }}{{ $names = append $names . }}{{ end }}
{{- $names | uniq | toJson }}
{{- end }}

{{- define "holdfast.tlsSecret" -}}
{{- if .Values.tls.certificate.create }}{{ .Values.tls.secretName | default (printf "%s-tls" (include "holdfast.name" .)) }}{{ else }}{{ .Values.tls.secretName }}{{ end -}}
{{- end }}

{{/* Namespaces with pods to watch, each once, as JSON. */}}
{{- define "holdfast.namespaces" -}}
{{- $names := list .Release.Namespace }}
{{- range .Values.clusters }}{{ $names = concat $names (.namespaces | default list) }}{{ end }}
{{- concat $names .Values.rbac.namespaces | uniq | toJson }}
{{- end }}

{{- define "holdfast.toml" -}}
{{- if .Values.config -}}
{{ .Values.config }}
{{- else -}}
[proxy]
{{- range $key, $value := .Values.proxy }}
{{ $key }} = {{ int $value }}
{{- end }}

[log]
{{- range $key, $value := .Values.log }}
{{ $key }} = {{ $value | quote }}
{{- end }}

[admin]
listen = "0.0.0.0:{{ int .Values.adminPort }}"
{{ $secret := include "holdfast.tlsSecret" . -}}
{{- range .Values.clusters }}
[[listener]]
name = {{ .name | quote }}
listen = "0.0.0.0:{{ int .port }}"
cluster = {{ .name | quote }}
mode = {{ .mode | default "split" | quote }}
{{- if and $secret (ne $.Values.tls.mode "disabled") }}

[listener.tls]
mode = {{ $.Values.tls.mode | quote }}
cert = "/etc/holdfast/secrets/{{ $secret }}/tls.crt"
key = "/etc/holdfast/secrets/{{ $secret }}/tls.key"
{{- end }}
{{ end }}
{{- range .Values.clusters }}
[[cluster]]
name = {{ .name | quote }}
source = "kubernetes"
{{- with .reconciler }}
reconciler = {{ . | quote }}
{{- end }}

[cluster.kubernetes]
preset = {{ .preset | quote }}
{{- with .cluster }}
cluster = {{ . | quote }}
{{- end }}
{{- with .component }}
component = {{ . | quote }}
{{- end }}
{{- with .namespaces }}
namespaces = {{ toJson . }}
{{- end }}

[cluster.account]
user = {{ .account.user | quote }}
password_file = "/etc/holdfast/secrets/{{ .account.secretName }}/{{ .account.key }}"
{{- with .caSecretName }}

[cluster.tls]
mode = "VERIFY_CA"
ca = "/etc/holdfast/secrets/{{ . }}/ca.crt"
{{- end }}
{{ end }}
{{- end }}
{{- end }}
