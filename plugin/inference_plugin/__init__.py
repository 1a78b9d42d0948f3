"""Traffic-router plugin of Argo Rollouts: moves traffic between model versions."""
