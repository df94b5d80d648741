package store

import "time"

// Escape and Unescape are exposed to the fuzz target.
var (
	Escape   = escape
	Unescape = unescape
)

// Restart replaces the embedded server, as after a write error.
func (e *Engine) Restart() { e.restart() }

// SetPatience has writes wait longer for the disk than a producer would.
func (e *Engine) SetPatience(d time.Duration) { e.patience = d }
