"""The eleven LAPE tasks: where a data set lies as its publisher distributes it, and which clip is in which split."""
