package confine

import (
	"errors"
	"fmt"
	"os"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// allowedCalls are the system calls that the Go runtime, wazero's compiler and the snapshots make,
// the frequent ones first: the filter is searched from the front.
func allowedCalls() []string {
	return []string{
		"futex", "read", "write", "clock_gettime", "epoll_pwait", "nanosleep", "madvise", "sched_yield", "gettid", "getpid",
		"rt_sigreturn", "rt_sigprocmask", "rt_sigaction", "sigaltstack", "mmap", "mprotect", "munmap", "close",
		"epoll_ctl", "epoll_wait", "epoll_create1", "eventfd2", "pipe2", "fcntl", "readv", "writev", "recvmsg", "sendmsg", "recvfrom", "sendto",
		"getrandom", "clock_nanosleep", "clock_getres", "gettimeofday", "time", "exit", "exit_group", "restart_syscall",
		"sched_getaffinity", "mincore", "rseq", "set_robust_list", "getrusage", "membarrier",
		// A lane on which an answer is waited for until a deadline.
		"ppoll",
		// Snapshots, where a page table tells what was written, and where memories are mapped anew.
		"userfaultfd", "memfd_create", "ftruncate", "pread64", "pwrite64", "fstat", "lseek",
	}
}

// fileCalls are what the folder of a root of its own takes: files in it are made, read and removed.
func fileCalls() []string {
	return []string{"openat", "newfstatat", "getdents64", "unlinkat", "mkdirat", "renameat", "fsync"}
}

// ioctls are the only requests that are let through: those of the snapshots.
func ioctls() []uint64 {
	return []uint64{
		0xc018aa3f, // UFFDIO_API
		0xc020aa00, // UFFDIO_REGISTER
		0x8010aa01, // UFFDIO_UNREGISTER
		0x8010aa02, // UFFDIO_WAKE
		0xc028aa03, // UFFDIO_COPY
		0xc020aa04, // UFFDIO_ZEROPAGE
		0xc018aa06, // UFFDIO_WRITEPROTECT
		0xc0606610, // PAGEMAP_SCAN
	}
}

// fatalCalls end the process: nothing in it makes them by mistake, so an attempt is to be seen. What
// is neither here nor allowed is refused with EPERM. Opening a file is refused only, because the
// runtime of a later Go may try; where there is a root of its own, Landlock refuses it.
func fatalCalls() []string {
	return []string{
		"socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "execve", "execveat", "fork", "vfork",
		"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "pidfd_open", "pidfd_send_signal", "kcmp",
		"bpf", "io_uring_setup", "io_uring_enter", "io_uring_register", "perf_event_open", "keyctl", "add_key", "request_key",
		"mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsmount", "setns", "unshare",
		"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff",
		"open_by_handle_at", "name_to_handle_at", "fanotify_init", "modify_ldt", "personality",
		"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "capset",
		"seccomp",
	}
}

const (
	// threadFlag is CLONE_THREAD; namespaceFlags are all CLONE_NEW…: threads may be made, in no
	// namespace but the process's own.
	threadFlag     = unix.CLONE_THREAD
	namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
		unix.CLONE_NEWPID | unix.CLONE_NEWNET
	// nameMemory is PR_SET_VMA, with which the Go runtime labels its memory.
	nameMemory = 0x53564d41
)

// filterCalls installs the filters, on all threads. Between the first, which refuses, and the second,
// which kills, the walls are tried.
func filterCalls(root Root) error {
	info, err := arch.GetInfo("")
	if err != nil {
		return fmt.Errorf("find the machine's system calls: %w", err)
	}
	allowed := append(allowedCalls(), "seccomp") // for the second filter, which takes it away
	if root.Own {
		allowed = append(allowed, fileCalls()...)
	}
	if err := load(refuse(info, allowed)); err != nil { // the process was started without new privileges
		return err
	}
	if err := tryCalls(root); err != nil {
		return err
	}
	return load(seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls:      []seccomp.SyscallGroup{{Names: known(info, fatalCalls()), Action: seccomp.ActionKillProcess}},
	})
}

func load(p seccomp.Policy) error {
	return seccomp.LoadFilter(seccomp.Filter{Flag: seccomp.FilterFlagTSync, Policy: p})
}

// refuse is the list of what is allowed; everything else is refused.
func refuse(info *arch.Info, allowed []string) seccomp.Policy {
	equal := func(name string, argument uint32, value uint64) seccomp.NameWithConditions {
		return seccomp.NameWithConditions{Name: name, Conditions: seccomp.ArgumentConditions{
			{Argument: argument, Operation: seccomp.Equal, Value: value},
		}}
	}
	self := uint64(os.Getpid())
	some := []seccomp.NameWithConditions{
		equal("tgkill", 0, self), // the runtime preempts goroutines by signals to its own threads
		equal("kill", 0, self),
		equal("prctl", 0, nameMemory),
		{Name: "clone", Conditions: seccomp.ArgumentConditions{
			{Argument: 0, Operation: seccomp.BitsSet, Value: threadFlag},
			{Argument: 0, Operation: seccomp.BitsNotSet, Value: namespaceFlags},
		}},
	}
	for _, request := range ioctls() {
		some = append(some, equal("ioctl", 1, request))
	}
	return seccomp.Policy{
		DefaultAction: seccomp.ActionErrno,
		Syscalls: []seccomp.SyscallGroup{
			// Its flags are in memory, where a filter cannot look: clone is used then.
			{Names: known(info, []string{"clone3"}), Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)},
			{Names: known(info, allowed), NamesWithCondtions: some, Action: seccomp.ActionAllow},
		},
	}
}

// known leaves out the calls that this machine's kernels do not have under that name.
func known(info *arch.Info, names []string) []string {
	var out []string
	for _, n := range names {
		if _, ok := info.SyscallNames[n]; ok {
			out = append(out, n)
		}
	}
	return out
}

// tryCalls tries what must not work.
func tryCalls(root Root) error {
	var errs []error
	refused := func(what string, err error) {
		if !errors.Is(err, unix.EPERM) {
			errs = append(errs, fmt.Errorf("it does not hold: %s was not refused (%v)", what, err))
		}
	}
	if !root.Own { // else it is Landlock's to refuse, and there is nothing to open
		fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			errs = append(errs, unix.Close(fd))
		}
		refused("opening a folder", err)
	}
	for name, family := range map[string]int{"an Internet socket": unix.AF_INET, "a Unix socket": unix.AF_UNIX} {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			errs = append(errs, unix.Close(fd))
		}
		refused("making "+name, err)
	}
	refused("running a program", unix.Exec("/proc/self/exe", []string{"sallyport", "version"}, nil))
	refused("a signal to another process", unix.Kill(os.Getppid()+1<<20, 0))
	return errors.Join(errs...)
}
