"""The contract of KubeCodeRun: both custom resources as models, and all names that several parts share.

Nothing here does any I/O, except `python -m kubecoderun_crds.schema`, which writes the CRD manifests.
"""
