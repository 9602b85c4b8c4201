"""Side by side with a hand-written loop; each prints ratios measured in one run."""
