"""Pictures to classify over a tower that stays as it is, wholly or in its lower blocks: what `frozen`, `partial` and `phases` share."""
