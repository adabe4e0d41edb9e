"""The trusted program beside every runtime: one owner per pod, one run, bounded output, one answer."""
