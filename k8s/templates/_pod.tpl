{{/*
The template of a pod of ours, but for its labels' indent: (dict
  "root" .            "component" "api"      "values" what values.yaml has of it
  "args" list         "env" YAML             "image" override
  "account" name, "" for the namespace's default, without rights
  "token" bool        "served" bool: has ports and probes      "ports" YAML
  "preStop" seconds   "grace" seconds        "config" name of a ConfigMap with forebay.toml, or ""
  "checksum" text     "connections" list of keys of the Secret  "restartPolicy" for Jobs
  "tls" name of a Secret, or ""              "tmpSize" of /tmp)
*/}}
{{- define "forebay.pod" -}}
{{- $root := .root -}}
{{- $v := .values -}}
metadata:
  labels:
    {{- include "forebay.podLabels" (list $root .component) | nindent 4 }}
    {{- with $v.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: forebay
    checksum/config: {{ printf "%s%s" .checksum (include "forebay.devSecret" $root) | sha256sum }}
    {{- with $v.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- with .account }}
  serviceAccountName: {{ . }}
  {{- end }}
  automountServiceAccountToken: {{ .token | default false }}
  # Variables of Services say nothing that DNS does not, and may be taken for settings.
  enableServiceLinks: false
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  {{- with $v.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: {{ .grace }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: forebay
      image: {{ include "forebay.image" (list $root .image) | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args:
        {{- toYaml .args | nindent 8 }}
      env:
        {{- .env | nindent 8 }}
        {{- if .config }}
        - name: FOREBAY_CONFIG
          value: /etc/forebay/config/forebay.toml
        {{- end }}
      {{- if .served }}
      ports:
        {{- with .ports }}
        {{- . | nindent 8 }}
        {{- end }}
        - name: admin
          containerPort: 9464
          protocol: TCP
      # Neither asks for the database or the broker to be restarted for: only whether this process works.
      startupProbe:
        httpGet: {path: /health/live, port: admin}
        periodSeconds: 2
        failureThreshold: 30
        timeoutSeconds: 2
      livenessProbe:
        httpGet: {path: /health/live, port: admin}
        periodSeconds: 10
        failureThreshold: 6
        timeoutSeconds: 5
      {{- if not .restartPolicy }}
      readinessProbe:
        httpGet: {path: /health/ready, port: admin}
        periodSeconds: 5
        failureThreshold: 3
        timeoutSeconds: 3
      {{- end }}
      {{- end }}
      {{- if .preStop }}
      lifecycle:
        preStop:
          # Kubernetes' own: there is no shell in the image.
          sleep:
            seconds: {{ .preStop }}
      {{- end }}
      resources:
        {{- toYaml $v.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      volumeMounts:
        - name: tmp
          mountPath: /tmp
        {{- if .connections }}
        - name: connections
          mountPath: /etc/forebay/connections
          readOnly: true
        {{- end }}
        {{- if .config }}
        - name: config
          mountPath: /etc/forebay/config
          readOnly: true
        {{- end }}
        {{- if .tls }}
        - name: tls
          mountPath: /etc/forebay/tls
          readOnly: true
        {{- end }}
        {{- with $v.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir:
        sizeLimit: {{ .tmpSize | default "16Mi" }}
    {{- if .connections }}
    - name: connections
      secret:
        secretName: {{ include "forebay.secretName" $root }}
        defaultMode: 0440
        items:
          {{- range .connections }}
          - key: {{ ternary $root.Values.connections.databaseUrlKey $root.Values.connections.brokerUrlKey (eq . "database-url") }}
            path: {{ . }}
          {{- end }}
    {{- end }}
    {{- if .config }}
    - name: config
      configMap:
        name: {{ .config }}
    {{- end }}
    {{- if .tls }}
    - name: tls
      secret:
        secretName: {{ .tls }}
        defaultMode: 0440
    {{- end }}
    {{- with $v.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $v.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if not .restartPolicy }}
  affinity:
    {{- if $v.affinity }}
    {{- toYaml $v.affinity | nindent 4 }}
    {{- else }}
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 50
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                {{- include "forebay.selector" (list $root .component) | nindent 16 }}
    {{- end }}
  topologySpreadConstraints:
    {{- if $v.topologySpreadConstraints }}
    {{- toYaml $v.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      # A pod in the wrong zone is better than none.
      whenUnsatisfiable: ScheduleAnyway
      matchLabelKeys: [pod-template-hash]
      labelSelector:
        matchLabels:
          {{- include "forebay.selector" (list $root $.component) | nindent 10 }}
    {{- end }}
    {{- end }}
  {{- else if $v.affinity }}
  affinity:
    {{- toYaml $v.affinity | nindent 4 }}
  {{- end }}
{{- end -}}

{{/*
A Deployment: the dict of "forebay.pod", and "replicas" (left out where something scales it, so that an upgrade does not
set it back) and "surge", how many pods an update may start before it ends the old ones.
*/}}
{{- define "forebay.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "forebay.name" (list .root .component) }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "forebay.labels" (list .root .component) | nindent 4 }}
  annotations:
    argocd.argoproj.io/sync-wave: "2"
spec:
  {{- if hasKey . "replicas" }}
  replicas: {{ int .replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxSurge: {{ .surge | default "25%" }}
      maxUnavailable: 0
  selector:
    matchLabels:
      {{- include "forebay.selector" (list .root .component) | nindent 6 }}
  template:
    {{- include "forebay.pod" . | nindent 4 }}
{{- end -}}

{{/* A PodDisruptionBudget: (list . "component" maxUnavailable). */}}
{{- define "forebay.pdb" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "forebay.name" (list (index . 0) (index . 1)) }}
  namespace: {{ (index . 0).Release.Namespace }}
  labels:
    {{- include "forebay.labels" (list (index . 0) (index . 1)) | nindent 4 }}
spec:
  maxUnavailable: {{ index . 2 }}
  # A pod that is not ready holds no drain up.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "forebay.selector" (list (index . 0) (index . 1)) | nindent 6 }}
{{- end -}}

{{/* A ServiceAccount: (list . "component" annotations token). */}}
{{- define "forebay.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "forebay.name" (list (index . 0) (index . 1)) }}
  namespace: {{ (index . 0).Release.Namespace }}
  labels:
    {{- include "forebay.labels" (list (index . 0) (index . 1)) | nindent 4 }}
  {{- with index . 2 }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}
