{{/* What the names of resources begin with. */}}
{{- define "forebay.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 253 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}{{- .Release.Name -}}{{- else -}}{{- printf "%s-%s" .Release.Name $name -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/*
The name of a resource: (list . "suffix"). At most 46 characters, so that a pod's name (17 more) is a host's name uncut, and
keda-hpa-<name> a label. What is cut off is replaced by a hash, so that two long names stay two.
*/}}
{{- define "forebay.name" -}}
{{- $full := include "forebay.fullname" (index . 0) -}}
{{- $suffix := index . 1 -}}
{{- $room := int (sub 46 (add 1 (len $suffix))) -}}
{{- if gt (len $full) $room -}}
{{- $full = printf "%s-%s" ($full | trunc (int (sub $room 7)) | trimSuffix "-") (sha256sum $full | trunc 6) -}}
{{- end -}}
{{- printf "%s-%s" $full $suffix -}}
{{- end -}}

{{/* What pods are selected by: (list . "component"). These can never change. */}}
{{- define "forebay.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* The labels of a resource: (list . "component"). */}}
{{- define "forebay.labels" -}}
{{- $root := index . 0 -}}
{{ include "forebay.podLabels" . }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* The labels of a pod: without the chart's version, so that a new chart alone restarts nothing. */}}
{{- define "forebay.podLabels" -}}
{{- $root := index . 0 -}}
{{ include "forebay.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: forebay
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image: (list . override). Its digest wins over its tag. */}}
{{- define "forebay.image" -}}
{{- $root := index . 0 -}}
{{- $own := default dict (index . 1) -}}
{{- $image := $root.Values.image -}}
{{- $repository := $own.repository | default $image.repository -}}
{{- $digest := $own.digest -}}
{{- $tag := $own.tag | default $image.tag | default $root.Chart.AppVersion -}}
{{- if and (not $own.repository) (not $own.tag) -}}{{- $digest = $digest | default $image.digest -}}{{- end -}}
{{- if eq $tag "latest" -}}{{- fail "image.tag: latest is not a version: which one runs would depend on the day" -}}{{- end -}}
{{- if $digest -}}{{- printf "%s@%s" $repository $digest -}}{{- else -}}{{- printf "%s:%s" $repository $tag -}}{{- end -}}
{{- end -}}

{{/* The Secret with the URLs of the database and the broker. */}}
{{- define "forebay.secretName" -}}
{{- $c := .Values.connections -}}
{{- $plain := or $c.databaseUrl $c.brokerUrl .Values.dev.postgres.enabled .Values.dev.nats.enabled -}}
{{- if and $c.existingSecret (or $c.externalSecret.enabled $plain) -}}
{{- fail "connections.existingSecret is set, and so is externalSecret, a URL or dev.*: say one" -}}
{{- end -}}
{{- if and $c.externalSecret.enabled $plain -}}
{{- fail "connections.externalSecret is on, and a URL or dev.* is set as well: say one" -}}
{{- end -}}
{{- if $c.existingSecret -}}{{- $c.existingSecret -}}
{{- else if or $c.externalSecret.enabled $plain -}}{{- include "forebay.name" (list . "connections") -}}
{{- else -}}
{{- fail "where are the database and the broker? Set connections.existingSecret or connections.externalSecret, or for a trial use values-dev.yaml" -}}
{{- end -}}
{{- end -}}

{{/* The contents of the Secret for development; empty where it comes from elsewhere. */}}
{{- define "forebay.devSecret" -}}
{{- $_ := include "forebay.secretName" . -}}
{{- $c := .Values.connections -}}
{{- if not (or $c.existingSecret $c.externalSecret.enabled) -}}
{{- $database := $c.databaseUrl -}}
{{- if and (not $database) .Values.dev.postgres.enabled -}}
{{- $database = printf "postgres://forebay:forebay@%s:5432/forebay" (include "forebay.name" (list . "postgres")) -}}
{{- end -}}
{{- $broker := $c.brokerUrl -}}
{{- if and (not $broker) .Values.dev.nats.enabled -}}
{{- $broker = printf "nats://%s:4222" (include "forebay.name" (list . "nats")) -}}
{{- end -}}
{{ $c.databaseUrlKey }}: {{ required "connections.databaseUrl is not set, and dev.postgres is off" $database | quote }}
{{ $c.brokerUrlKey }}: {{ required "connections.brokerUrl is not set, and dev.nats is off" $broker | quote }}
{{- end -}}
{{- end -}}

{{/* The pools, each with what poolDefaults says where it is silent, as JSON. */}}
{{- define "forebay.pools" -}}
{{- $pools := list -}}
{{- $names := dict -}}
{{- range .Values.pools -}}
{{- if hasKey $names .name -}}{{- fail (printf "pools: there are two that are called %q" .name) -}}{{- end -}}
{{- $_ := set $names .name true -}}
{{- $pool := mergeOverwrite (deepCopy $.Values.poolDefaults) (deepCopy .) -}}
{{- if and $pool.job (not (and $.Values.keda.enabled $pool.scaling.enabled)) -}}
{{- fail (printf "pools: %q has job: true, which needs KEDA to start the Jobs: set keda.enabled, and leave scaling.enabled on" .name) -}}
{{- end -}}
{{- if and $pool.handlers $pool.handlersConfigMap -}}
{{- fail (printf "pools: %q has handlers and handlersConfigMap: say one" .name) -}}
{{- end -}}
{{- $pools = append $pools $pool -}}
{{- end -}}
{{- dict "pools" $pools | toJson -}}
{{- end -}}

{{/*
How many connections to PostgreSQL there are at most: of each process as many as its pools hold, and one more of a recorder, for
maintenance.
*/}}
{{- define "forebay.databaseConnections" -}}
{{- $v := .Values -}}
{{- $api := int (ternary $v.api.autoscaling.max $v.api.replicas $v.api.autoscaling.enabled) -}}
{{- $sum := mul $api (add $v.api.databaseConnections.hot $v.api.databaseConnections.read) -}}
{{- if $v.scaler.enabled -}}
{{- $sum = add $sum (mul $v.scaler.replicas (add $v.scaler.databaseConnections.hot $v.scaler.databaseConnections.read)) -}}
{{- end -}}
{{- $sum = add $sum (mul $v.recorder.replicas (add $v.recorder.databaseConnections.hot $v.recorder.databaseConnections.read 1)) -}}
{{- range $pool := (include "forebay.pools" . | fromJson).pools -}}
{{- $workers := $pool.replicas -}}
{{- if include "forebay.isScaled" (list $ $pool) -}}{{- $workers = $pool.scaling.max -}}{{- end -}}
{{- $sum = add $sum (mul $workers (add $pool.databaseConnections.hot $pool.databaseConnections.read)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* Whether KEDA scales a pool: (list . pool). */}}
{{- define "forebay.isScaled" -}}
{{- $root := index . 0 -}}{{- $pool := index . 1 -}}
{{- if and $root.Values.keda.enabled $pool.scaling.enabled -}}true{{- end -}}
{{- end -}}

{{/* The variables of a container of ours: (dict "root" . "for" "api|scaler|worker|migrate" "extra" list "values" what values.yaml has of it). */}}
{{- define "forebay.env" -}}
{{- $c := .root.Values.config -}}
- name: FOREBAY_DATABASE_URL_FILE
  value: /etc/forebay/connections/database-url
{{- if ne .for "migrate" }}
- name: FOREBAY_BROKER_URL_FILE
  value: /etc/forebay/connections/broker-url
- name: FOREBAY_NATS_REPLICAS
  value: {{ $c.natsReplicas | int | toString | quote }}
- name: FOREBAY_NATS_STREAM_MAX_BYTES
  value: {{ $c.natsStreamMaxBytes | quote }}
- name: FOREBAY_RABBITMQ_QUEUE_MAX_BYTES
  value: {{ $c.rabbitmqQueueMaxBytes | quote }}
- name: FOREBAY_DATABASE_HOT_CONNECTIONS
  value: {{ .values.databaseConnections.hot | int | toString | quote }}
- name: FOREBAY_DATABASE_READ_CONNECTIONS
  value: {{ .values.databaseConnections.read | int | toString | quote }}
{{- end }}
- name: FOREBAY_LOG_FORMAT
  value: {{ $c.logFormat }}
{{- with $c.log }}
- name: FOREBAY_LOG
  value: {{ . | quote }}
{{- end }}
{{- with $c.otlpEndpoint }}
- name: FOREBAY_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- if or (eq .for "worker") (eq .for "api") }}
- name: FOREBAY_LEASE
  value: {{ $c.lease | quote }}
{{- end }}
{{- if eq .for "worker" }}
- name: FOREBAY_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- with $c.retentionDays }}
- name: FOREBAY_RETENTION_DAYS
  value: {{ . | int | toString | quote }}
{{- end }}
{{- end }}
{{- with concat $c.extraEnv .extra }}
{{ toYaml . }}
{{- end }}
{{- end -}}
