//go:build !linux

package wall

func defaultMemory() int64 { return 0 }
