{{/* What "forebay.pod" wants for a pool: (list . pool); as JSON. */}}
{{- define "forebay.poolPod" -}}
{{- $root := index . 0 -}}
{{- $pool := index . 1 -}}
{{- $component := printf "worker-%s" $pool.name -}}
{{- $args := list "worker" "--roles" "executor" -}}
{{- if $pool.builtinHandlers -}}{{- $args = append $args "--builtin-handlers" -}}{{- end -}}
{{- if $pool.job -}}{{- $args = append $args "--once" -}}{{- end -}}
{{- $own := list
    (dict "name" "FOREBAY_QUEUES" "value" (join "," $pool.queues))
    (dict "name" "FOREBAY_CONCURRENCY" "value" ($pool.concurrency | int | toString))
    (dict "name" "FOREBAY_DRAIN_TIMEOUT" "value" (printf "%ds" (int $pool.drainTimeoutSeconds))) -}}
{{- if and $pool.job $pool.jobs.maxTasks -}}
{{- $own = append $own (dict "name" "FOREBAY_WORKER_MAX_TASKS" "value" ($pool.jobs.maxTasks | int | toString)) -}}
{{- end -}}
{{- $cost := and $pool.podDeletionCost (not $pool.job) -}}
{{- if $cost -}}
{{- $own = concat $own (list
    (dict "name" "FOREBAY_WORKER_POD_DELETION_COST" "value" "true")
    (dict "name" "POD_NAME" "valueFrom" (dict "fieldRef" (dict "fieldPath" "metadata.name")))
    (dict "name" "POD_NAMESPACE" "valueFrom" (dict "fieldRef" (dict "fieldPath" "metadata.namespace")))) -}}
{{- end -}}
{{- if $pool.job -}}
{{- /* Whoever wants to save a node must not take it from under hours of work. */ -}}
{{- $stay := dict "cluster-autoscaler.kubernetes.io/safe-to-evict" "false" "karpenter.sh/do-not-disrupt" "true" -}}
{{- $_ := set $pool "podAnnotations" (mergeOverwrite $stay $pool.podAnnotations) -}}
{{- end -}}
{{- $config := $pool.handlersConfigMap -}}
{{- if $pool.handlers -}}{{- $config = include "forebay.name" (list $root $component) -}}{{- end -}}
{{- dict "component" $component "values" $pool "args" $args "served" true "image" $pool.image
    "env" (include "forebay.env" (dict "root" $root "for" "worker" "values" $pool "extra" (concat $own $pool.extraEnv)))
    "account" (include "forebay.name" (list $root $component)) "token" $cost
    "grace" (add $pool.drainTimeoutSeconds 15) "checksum" $pool.handlers "config" $config
    "connections" (list "database-url" "broker-url") "tmpSize" $pool.tmpSize | toJson -}}
{{- end -}}
