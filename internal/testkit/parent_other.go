//go:build !linux

package testkit

import "syscall"

// endsWithParent is for Linux: elsewhere a test that is killed leaves its server running.
func endsWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
