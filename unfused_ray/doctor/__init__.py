"""Checks that a cluster has everything that a run needs: reports from every node, and findings made from them."""
