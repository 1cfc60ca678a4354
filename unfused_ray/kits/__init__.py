"""Adapters of an exported encoder to evaluations of other projects (HEAR, X-ARES, EVAR, MTEB). The core suffices."""
