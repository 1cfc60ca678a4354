"""Adapters: an exported encoder in other projects' evaluations (HEAR, X-ARES, EVAR, MTEB). The core is enough."""
