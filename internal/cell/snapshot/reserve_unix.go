//go:build unix

package snapshot

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// reserve maps n bytes of address space that read as zero.
func reserve(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
}

// unreserve unmaps what reserve returned, and whatever was mapped over it.
func unreserve(space []byte) {
	if err := unix.Munmap(space); err != nil {
		panic(fmt.Sprintf("BUG: unmap guest memory: %v", err))
	}
}
