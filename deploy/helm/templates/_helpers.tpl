{{- define "her2.labels" -}}
app.kubernetes.io/name: her2cohort
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: her2cohort
{{- end }}

{{- define "her2.meta" -}}
{{ include "her2.labels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "her2.image" -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- end }}

{{- define "her2.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "her2.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Settings of pods that talk to Prefect. Home, temporary files and compiled kernels lie on the scratch volume. */}}
{{- define "her2.environment" -}}
PREFECT_API_URL: {{ .Values.prefect.apiUrl | quote }}
PREFECT_HOME: /scratch/prefect
PREFECT_SERVER_ANALYTICS_ENABLED: "false"
DO_NOT_TRACK: "1"
HOME: /scratch
TMPDIR: /scratch
NUMBA_CACHE_DIR: /scratch/numba
{{- end }}

{{- define "her2.storageEnvironment" -}}
{{- with .Values.storage.endpointUrl }}
AWS_ENDPOINT_URL: {{ . | quote }}
{{- end }}
{{- with .Values.storage.region }}
AWS_REGION: {{ . | quote }}
{{- end }}
{{- end }}

{{/* What the run's cluster is made of: read by flows/clusters/pods.py, class PodSettings. */}}
{{- define "her2.cluster" -}}
{{- $dask := .Values.dask -}}
image: {{ include "her2.image" . }}
pull_secrets: {{ toJson .Values.image.pullSecrets }}
namespace: {{ .Release.Namespace }}
service_account: {{ .Release.Name }}-dask
operator_namespace: {{ $dask.operatorNamespace }}
minimum: {{ $dask.minimum }}
maximum: {{ $dask.maximum }}
clusters: {{ $dask.clusters }}
idle_timeout_s: {{ $dask.idleTimeoutSeconds }}
start_timeout_s: {{ $dask.startTimeoutSeconds }}
environment:
  DO_NOT_TRACK: "1"
  {{- with include "her2.storageEnvironment" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
secrets: {{ if .Values.storage.secret }}[{{ .Values.storage.secret | quote }}]{{ else }}[]{{ end }}
labels:
  app.kubernetes.io/instance: {{ .Release.Name }}
scheduler:
  cpu: {{ $dask.scheduler.cpu | quote }}
  memory: {{ $dask.scheduler.memory | quote }}
  scratch: {{ $dask.scheduler.scratch | quote }}
  node_selector: {{ toJson $dask.scheduler.nodeSelector }}
  tolerations: {{ toJson $dask.scheduler.tolerations }}
  priority_class: {{ .Values.priorityClasses.driver }}
worker:
  cpu: {{ $dask.worker.cpu | quote }}
  memory: {{ $dask.worker.memory | quote }}
  scratch: {{ $dask.worker.scratch | quote }}
  node_selector: {{ toJson $dask.worker.nodeSelector }}
  tolerations: {{ toJson (ternary (concat $dask.worker.tolerations $dask.worker.spot.tolerations) $dask.worker.tolerations $dask.worker.spot.enabled) }}
  priority_class: {{ .Values.priorityClasses.worker }}
{{- end }}

{{- define "her2.prefectFile" -}}
name: her2cohort
pull: []
deployments:
{{- range $cohort := .Values.cohorts }}
  {{- $active := true }}
  {{- if hasKey . "active" }}{{ $active = .active }}{{ end }}
  {{- $timezone := .timezone | default "UTC" | quote }}
  - name: {{ .name }}
    description: Score every slide of the manifest that is not scored yet. Research use only.
    entrypoint: flows.cohort.cohort
    tags: [her2]
    parameters:
      manifest: {{ .manifest | quote }}
      out: {{ .out | quote }}
      config: {{ toJson .config }}
      cluster: kubernetes
      only: []
      new_only: false
    schedules:
      - {cron: {{ .cron | quote }}, timezone: {{ $timezone }}, active: {{ $active }}}
    {{- if $.Values.prefect.enqueue }}
    concurrency_limit: {limit: 1, collision_strategy: ENQUEUE}
    {{- end }}
    work_pool:
      name: {{ $.Values.prefect.workPool }}
  {{- with .ingest }}
  - name: {{ $cohort.name }}-ingest
    description: Take in what arrived, and score what no run has seen. Research use only.
    entrypoint: flows.ingest.ingest_slides
    tags: [her2]
    parameters:
      place: {{ .place | quote }}
      manifest: {{ $cohort.manifest | quote }}
      out: {{ $cohort.out | quote }}
      rule: {{ toJson .rule }}
      table: {{ toJson .table }}
      config: {{ toJson $cohort.config }}
      cluster: kubernetes
      deployment: her2-cohort/{{ $cohort.name }}
    schedules:
      - {cron: {{ .cron | quote }}, timezone: {{ $timezone }}, active: {{ $active }}}
    {{- if $.Values.prefect.enqueue }}
    concurrency_limit: {limit: 1, collision_strategy: ENQUEUE}
    {{- end }}
    work_pool:
      name: {{ $.Values.prefect.workPool }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Base job template of the work pool: how a flow run becomes a Job. */}}
{{- define "her2.jobTemplate" -}}
variables:
  type: object
  properties:
    name: {type: string, title: Name}
    labels: {type: object, title: Labels, additionalProperties: {type: string}, default: {}}
    annotations: {type: object, title: Annotations, additionalProperties: {type: string}, default: {}}
    env: {type: object, title: Environment, additionalProperties: {type: string}, default: {}}
    command: {type: string, title: Command}
    cpu: {type: string, title: CPU of the flow, default: {{ .Values.flow.cpu | quote }}}
    memory: {type: string, title: Memory of the flow, default: {{ .Values.flow.memory | quote }}}
job_configuration:
  command: {{ "{{ command }}" | quote }}
  env: {{ "{{ env }}" | quote }}
  labels: {{ "{{ labels }}" | quote }}
  annotations: {{ "{{ annotations }}" | quote }}
  name: {{ "{{ name }}" | quote }}
  namespace: {{ .Release.Namespace }}
  # A new node may have to come up for the pod.
  pod_watch_timeout_seconds: {{ .Values.dask.startTimeoutSeconds }}
  stream_output: false
  job_manifest:
    apiVersion: batch/v1
    kind: Job
    metadata:
      generateName: {{ "{{ name }}-" | quote }}
      namespace: {{ .Release.Namespace }}
      labels: {{ "{{ labels }}" | quote }}
      annotations: {{ "{{ annotations }}" | quote }}
    spec:
      # Prefect schedules a flow run anew whose pod is told to end, but only where Kubernetes does not.
      backoffLimit: 0
      parallelism: 1
      completions: 1
      ttlSecondsAfterFinished: {{ .Values.flow.keepSeconds }}
      template:
        metadata:
          labels:
            {{- include "her2.labels" . | nindent 12 }}
            app.kubernetes.io/component: flow
          annotations:
            cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
            karpenter.sh/do-not-disrupt: "true"
            {{- if and .Values.monitoring.enabled (not .Values.monitoring.operator) }}
            prometheus.io/scrape: "true"
            prometheus.io/port: {{ .Values.monitoring.port | quote }}
            {{- end }}
        spec:
          restartPolicy: Never
          serviceAccountName: {{ .Release.Name }}-flow
          enableServiceLinks: false
          terminationGracePeriodSeconds: {{ .Values.flow.terminationGracePeriodSeconds }}
          {{- with .Values.priorityClasses.driver }}
          priorityClassName: {{ . }}
          {{- end }}
          {{- with .Values.image.pullSecrets }}
          imagePullSecrets:
            {{- range . }}
            - name: {{ . }}
            {{- end }}
          {{- end }}
          {{- with .Values.flow.nodeSelector }}
          nodeSelector: {{ toJson . }}
          {{- end }}
          {{- with .Values.flow.tolerations }}
          tolerations: {{ toJson . }}
          {{- end }}
          securityContext:
            {{- include "her2.podSecurity" . | nindent 12 }}
          containers:
            - name: prefect-job  # Prefect takes no other name
              image: {{ include "her2.image" . }}
              imagePullPolicy: IfNotPresent
              args: {{ "{{ command }}" | quote }}
              env:
                - name: POD_NAME
                  valueFrom: {fieldRef: {fieldPath: metadata.name}}
                - name: POD_UID
                  valueFrom: {fieldRef: {fieldPath: metadata.uid}}
                - name: POD_NAMESPACE
                  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
                {{- $settings := dict "PREFECT_LOGGING_LEVEL" "INFO" "PREFECT_LOGGING_EXTRA_LOGGERS" "her2core" }}
                {{- $_ := set $settings "HER2_RUN__METRICS_PORT" (toString .Values.monitoring.port) }}
                {{- $_ := set $settings "HER2_RUN__JSON_LOGS" "true" }}
                {{- $settings = mergeOverwrite $settings (include "her2.environment" . | fromYaml) (include "her2.storageEnvironment" . | fromYaml) .Values.flow.environment }}
                {{- range $name, $value := $settings }}
                - name: {{ $name }}
                  value: {{ $value | quote }}
                {{- end }}
              {{- with .Values.storage.secret }}
              envFrom:
                - secretRef: {name: {{ . }}}
              {{- end }}
              ports:
                - name: metrics
                  containerPort: {{ .Values.monitoring.port }}
              resources:
                requests:
                  cpu: {{ "{{ cpu }}" | quote }}
                  memory: {{ "{{ memory }}" | quote }}
                limits:
                  memory: {{ "{{ memory }}" | quote }}
              securityContext:
                {{- include "her2.containerSecurity" . | nindent 16 }}
              volumeMounts:
                - name: scratch
                  mountPath: /scratch
                - name: settings
                  mountPath: /etc/her2
                  readOnly: true
          volumes:
            - name: scratch
              emptyDir:
                sizeLimit: {{ .Values.flow.scratch }}
            - name: settings
              configMap:
                name: {{ .Release.Name }}-settings
                items:
                  - key: cluster.yaml
                    path: cluster.yaml
{{- end }}
