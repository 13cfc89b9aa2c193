{{/*
Everything here works on a dict `k` that says all that is needed, so that the chart `forebay` can include it, too:
  keda       the values of this chart
  release    .Release
  labels     labels, as YAML
  annotations  annotations, as YAML
  monitor    HOST:PORT of NATS' monitoring unless keda.natsJetstream.monitoringEndpoint is set
  address    the scaler's HOST:PORT unless keda.externalPush.address is set
  secret, secretKey   where the broker's URL is
  authName   what the TriggerAuthentication is called
  pool       {name, target, queues, scaling, …}
*/}}

{{/* The source of a pool. */}}
{{- define "forebay-keda.source" -}}
{{- $source := .pool.scaling.source | default .keda.source -}}
{{- if not (has $source (list "external-push" "nats-jetstream" "rabbitmq" "prometheus" "cpu")) -}}
{{- fail (printf "keda: pool %q: there is no source %q" .pool.name $source) -}}
{{- end -}}
{{- $source -}}
{{- end -}}

{{/* Refuses what could not work, in words. */}}
{{- define "forebay-keda.check" -}}
{{- $source := include "forebay-keda.source" . -}}
{{- $scaling := .pool.scaling -}}
{{- if gt (int $scaling.min) (int $scaling.max) -}}
{{- fail (printf "keda: pool %q: scaling.min is more than scaling.max" .pool.name) -}}
{{- end -}}
{{- if and (eq $source "cpu") (lt (int $scaling.min) 1) -}}
{{- fail (printf "keda: pool %q: source cpu needs scaling.min of 1 or more: a pool at zero has no CPU to measure, so nothing could ever wake it. Use external-push, or set scaling.min" .pool.name) -}}
{{- end -}}
{{- if and (eq $source "cpu") .pool.job -}}
{{- fail (printf "keda: pool %q: Jobs cannot be scaled by CPU: use another source" .pool.name) -}}
{{- end -}}
{{- if and (eq $scaling.mode "desired_workers") (ne $source "external-push") -}}
{{- fail (printf "keda: pool %q: only source external-push knows the mode desired_workers" .pool.name) -}}
{{- end -}}
{{- if and (eq $scaling.mode "desired_workers") .pool.job -}}
{{- fail (printf "keda: pool %q: the mode desired_workers does not measure Jobs, which end by themselves: use the mode tasks" .pool.name) -}}
{{- end -}}
{{- if and (eq $source "external-push") .keda.externalPush.tls.enabled (not .keda.externalPush.tls.secretName) (not .keda.authenticationName) -}}
{{- fail "keda: externalPush.tls.enabled needs externalPush.tls.secretName" -}}
{{- end -}}
{{- end -}}

{{/* Whether a source needs a TriggerAuthentication of ours. */}}
{{- define "forebay-keda.needsAuth" -}}
{{- $source := include "forebay-keda.source" . -}}
{{- if not .keda.authenticationName -}}
{{- if or (eq $source "rabbitmq") (and (eq $source "external-push") .keda.externalPush.tls.enabled) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* A TriggerAuthentication for the source of a pool. */}}
{{- define "forebay-keda.authentication" -}}
{{- $source := include "forebay-keda.source" . -}}
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata:
  name: {{ printf "%s-%s" .authName $source }}
  namespace: {{ .release.Namespace }}
  labels:
    {{- .labels | nindent 4 }}
spec:
  secretTargetRef:
  {{- if eq $source "rabbitmq" }}
    {{- $secret := .keda.rabbitmq.secretName | default .secret }}
    {{- if not $secret }}{{ fail "keda: rabbitmq.secretName is not set" }}{{ end }}
    - parameter: host
      name: {{ $secret }}
      key: {{ ternary .keda.rabbitmq.secretKey (.secretKey | default .keda.rabbitmq.secretKey) (ne .keda.rabbitmq.secretName "") }}
  {{- else }}
    {{- $tls := .keda.externalPush.tls }}
    - {parameter: caCert, name: {{ $tls.secretName }}, key: ca.crt}
    {{- if $tls.clientCertificate }}
    - {parameter: tlsClientCert, name: {{ $tls.secretName }}, key: tls.crt}
    - {parameter: tlsClientKey, name: {{ $tls.secretName }}, key: tls.key}
    {{- end }}
  {{- end }}
{{- end -}}

{{- define "forebay-keda.authenticationRef" -}}
{{- if .keda.authenticationName }}
authenticationRef:
  name: {{ .keda.authenticationName }}
{{- else if include "forebay-keda.needsAuth" . }}
authenticationRef:
  name: {{ printf "%s-%s" .authName (include "forebay-keda.source" .) }}
{{- end }}
{{- end -}}

{{/* What a trigger is called in a formula: letters, digits and _ only. */}}
{{- define "forebay-keda.laneName" -}}
{{- printf "q_%s_%s" (.queue | replace "-" "_m_") .priority -}}
{{- end -}}

{{/* The triggers of a pool: those of its source, and CPU. */}}
{{- define "forebay-keda.triggers" -}}
{{- $k := . -}}
{{- $source := include "forebay-keda.source" . -}}
{{- $scaling := .pool.scaling -}}
{{- $target := $scaling.tasksPerWorker | int | toString -}}
{{- if eq $source "external-push" }}
# The first task of an idle queue is pushed to KEDA; how many there are, it asks for.
{{- if .pool.job }} A ScaledJob can only ask.{{ end }}
- type: {{ ternary "external" "external-push" (default false .pool.job) }}
  name: tasks
  metadata:
    scalerAddress: {{ required "keda: externalPush.address is not set" (.keda.externalPush.address | default .address) | quote }}
    {{- if .keda.externalPush.tls.enabled }}
    enableTLS: "true"
    {{- end }}
    queue: {{ join "," .pool.queues | quote }}
    mode: {{ $scaling.mode | quote }}
    target_per_worker: {{ $target | quote }}
  {{- with include "forebay-keda.authenticationRef" . }}{{ . | indent 2 }}{{ end }}
{{- else if eq $source "nats-jetstream" }}
{{- $n := .keda.natsJetstream }}
{{- $monitor := required "keda: natsJetstream.monitoringEndpoint is not set" ($n.monitoringEndpoint | default .monitor) }}
{{- range $queue := .pool.queues }}
{{- range $priority := list "high" "default" "low" }}
- type: nats-jetstream
  name: {{ include "forebay-keda.laneName" (dict "queue" $queue "priority" $priority) }}
  metadata:
    natsServerMonitoringEndpoint: {{ $monitor | quote }}
    account: {{ $n.account | quote }}
    stream: {{ $n.stream | quote }}
    consumer: {{ printf "lane_%s_%s" $queue $priority | quote }}
    lagThreshold: {{ $target | quote }}
    activationLagThreshold: "0"
    useHttps: {{ $n.useHttps | toString | quote }}
  {{- with include "forebay-keda.authenticationRef" $k }}{{ . | indent 2 }}{{ end }}
{{- end }}
{{- end }}
{{- else if eq $source "rabbitmq" }}
{{- $r := .keda.rabbitmq }}
{{- range $queue := .pool.queues }}
{{- range $priority := list "high" "default" "low" }}
- type: rabbitmq
  name: {{ include "forebay-keda.laneName" (dict "queue" $queue "priority" $priority) }}
  metadata:
    protocol: {{ $r.protocol | quote }}
    mode: QueueLength
    value: {{ $target | quote }}
    activationValue: "0"
    queueName: {{ printf "forebay.lane.%s.%s" $queue $priority | quote }}
    {{- if $r.vhost }}
    vhostName: {{ $r.vhost | quote }}
    {{- end }}
  {{- with include "forebay-keda.authenticationRef" $k }}{{ . | indent 2 }}{{ end }}
{{- end }}
{{- end }}
{{- else if eq $source "prometheus" }}
{{- $p := .keda.prometheus }}
{{- $matchers := $p.matchers | default (printf "namespace=%q" .release.Namespace) }}
{{- $of := printf "{queue=~%q,%s}" (join "|" .pool.queues) $matchers }}
# Every replica of the API and of the scaler tells the same numbers, hence max and not sum. What is stale is left out; where
# nothing is left, there is no result, and ignoreNullValues makes that a failure instead of a zero.
- type: prometheus
  name: tasks
  metadata:
    serverAddress: {{ $p.serverAddress | quote }}
    query: >-
      sum(max by (queue) (
        (forebay_queue_ready{{ $of }} + forebay_queue_running{{ $of }})
        and on (job, instance) (time() - forebay_queue_stats_timestamp_seconds{{ printf "{%s}" $matchers }} < {{ int $p.staleSeconds }})
      ))
    threshold: {{ $target | quote }}
    activationThreshold: "0"
    ignoreNullValues: "false"
  {{- with include "forebay-keda.authenticationRef" . }}{{ . | indent 2 }}{{ end }}
{{- end }}
{{- if and (not .pool.job) (or .keda.cpu.enabled (eq $source "cpu")) }}
# Never wakes a pool: at zero there is no CPU to measure. The name of the container is left out, since beside a formula KEDA
# keeps CPU only for the pod as a whole.
- type: cpu
  metricType: Utilization
  metadata:
    value: {{ .keda.cpu.utilization | int | toString | quote }}
{{- end }}
{{- end -}}

{{/* The sum of all lanes. An autoscaler takes the highest of several metrics, and would leave the others out. */}}
{{- define "forebay-keda.formula" -}}
{{- $names := list -}}
{{- range $queue := .pool.queues -}}
{{- range $priority := list "high" "default" "low" -}}
{{- $names = append $names (include "forebay-keda.laneName" (dict "queue" $queue "priority" $priority)) -}}
{{- end -}}
{{- end -}}
{{- join " + " $names -}}
{{- end -}}

{{- define "forebay-keda.metadata" -}}
metadata:
  name: {{ .pool.target }}
  namespace: {{ .release.Namespace }}
  labels:
    {{- .labels | nindent 4 }}
  {{- with .annotations }}
  annotations:
    {{- . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* The ScaledObject of a pool that is a Deployment. */}}
{{- define "forebay-keda.scaledObject" -}}
{{- include "forebay-keda.check" . -}}
{{- $source := include "forebay-keda.source" . -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
{{ include "forebay-keda.metadata" . }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ .pool.target }}
  pollingInterval: {{ int .keda.pollingInterval }}
  cooldownPeriod: {{ int .keda.cooldownPeriod }}
  minReplicaCount: {{ int .pool.scaling.min }}
  maxReplicaCount: {{ int .pool.scaling.max }}
  {{- if and .keda.fallback.enabled (ne $source "cpu") }}
  fallback:
    failureThreshold: {{ int .keda.fallback.failureThreshold }}
    replicas: {{ min (max (int .keda.fallback.replicas) (int .pool.scaling.min)) (int .pool.scaling.max) }}
    behavior: {{ .keda.fallback.behavior }}
  {{- end }}
  advanced:
    {{- if has $source (list "nats-jetstream" "rabbitmq") }}
    # A consumer, or queue, that does not exist is an error to KEDA, and not a zero. A worker makes all three of its queues'
    # lanes when it starts: the first pod of the Deployment does, or the fallback's.
    scalingModifiers:
      formula: {{ include "forebay-keda.formula" . | quote }}
      target: {{ .pool.scaling.tasksPerWorker | int | toString | quote }}
      activationTarget: "0"
      metricType: AverageValue
    {{- end }}
    horizontalPodAutoscalerConfig:
      behavior:
        {{- toYaml .keda.behavior | nindent 8 }}
  triggers:
    {{- include "forebay-keda.triggers" . | trim | nindent 4 }}
{{- end -}}

{{/* The ScaledJob of a pool whose workers are Jobs; `template` is the pod's template, as YAML. */}}
{{- define "forebay-keda.scaledJob" -}}
{{- include "forebay-keda.check" . -}}
{{- $source := include "forebay-keda.source" . -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledJob
{{ include "forebay-keda.metadata" . }}
spec:
  jobTargetRef:
    parallelism: 1
    completions: 1
    # What a Job leaves undone goes back to its queue, and another Job takes it.
    backoffLimit: 0
    {{- if .pool.jobs.activeDeadlineSeconds }}
    activeDeadlineSeconds: {{ int .pool.jobs.activeDeadlineSeconds }}
    {{- end }}
    template:
      {{- .template | nindent 6 }}
  pollingInterval: {{ int .keda.pollingInterval }}
  minReplicaCount: {{ int .pool.scaling.min }}
  maxReplicaCount: {{ int .pool.scaling.max }}
  successfulJobsHistoryLimit: {{ int .pool.jobs.historyLimit }}
  failedJobsHistoryLimit: {{ int .pool.jobs.historyLimit }}
  # An update leaves Jobs that run alone.
  rollout:
    strategy: gradual
  scalingStrategy:
    # default takes the Jobs that run off the number, which includes the tasks they run; accurate does not, for sources that
    # see only what waits.
    strategy: {{ ternary "accurate" "default" (has $source (list "nats-jetstream" "rabbitmq")) }}
    multipleScalersCalculation: sum
  triggers:
    {{- include "forebay-keda.triggers" . | trim | nindent 4 }}
{{- end -}}
