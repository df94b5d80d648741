//go:build !linux

package wall

import (
	"os"
	"time"
)

// readable is for workers, which there are none of here.
func readable(*os.File) func(time.Duration) bool {
	return func(time.Duration) bool { return true }
}
