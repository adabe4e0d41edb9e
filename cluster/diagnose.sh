#!/usr/bin/env bash
# Says what is wrong with a deployment: pods that are not ready with their conditions, warnings, and last log lines.
. "$(dirname "$0")/env.sh"

for namespace in "$SYSTEM_NAMESPACE" kubecoderun; do
  echo "--- pods in $namespace"
  kubectl -n "$namespace" get pods -o wide 2>&1
  unready=$(kubectl -n "$namespace" get pods --no-headers 2>/dev/null | awk '{split($2, n, "/"); if (n[1] != n[2]) print $1}' | head -n 4)
  for pod in $unready; do
    echo "--- $namespace/$pod: conditions, containers, last log lines"
    kubectl -n "$namespace" get pod "$pod" -o jsonpath='{range .status.conditions[?(@.status!="True")]}{.type}: {.reason} {.message}{"\n"}{end}{range .status.containerStatuses[*]}{.name}: {.state} restarts {.restartCount}{"\n"}{end}'
    kubectl -n "$namespace" logs "$pod" --all-containers --prefix --tail 15 2>&1 || true
  done
  echo "--- warnings in $namespace"
  kubectl -n "$namespace" get events --field-selector type=Warning --sort-by .lastTimestamp 2>&1 | tail -n 12
done
echo "--- pools"
kubectl -n kubecoderun get executionpools -o wide 2>&1
kubectl -n kubecoderun get executionpools \
  -o jsonpath='{range .items[*].status.conditions[*]}{.type}={.status} {.reason} {.message}{"\n"}{end}' 2>&1 || true
echo "--- operator, last log lines"
kubectl -n "$SYSTEM_NAMESPACE" logs deployment/kubecoderun-operator --tail 20 2>&1 || true
