"""Keep a deployed space good: drift, feedback, refinement, and a new model without downtime."""
