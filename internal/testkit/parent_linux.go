package testkit

import "syscall"

// endsWithParent has a process end with the thread that started it.
func endsWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT} }
