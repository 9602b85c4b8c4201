"""What every migration needs: a notebook as a draft, its names across cells, and edits."""
