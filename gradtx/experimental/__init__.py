"""What may still change."""

from gradtx.experimental import aggregating as aggregating
