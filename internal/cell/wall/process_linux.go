package wall

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// inherited is the descriptor of a worker's end of the socket pair.
	inherited = 3
	// nobody is the user and group that a worker is in its user namespace, and outside of it too when the
	// server is root.
	nobody = 65534
	// lastCapability is beyond every capability there is.
	lastCapability = 63
)

// Inherited returns the sockets that this process, a worker, got from the server, with so many lanes, and
// has the signals that are for the server ignored: a worker ends when the server does.
func Inherited(lanes int) (conn *os.File, along []*os.File, err error) {
	for fd := inherited; fd <= inherited+lanes; fd++ {
		unix.CloseOnExec(fd)
	}
	if _, err := unix.GetsockoptInt(inherited, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return nil, nil, errors.New("this command is the server's own: it starts its workers with it")
	}
	if err := unix.SetNonblock(inherited, true); err != nil {
		return nil, nil, fmt.Errorf("prepare the socket: %w", err)
	}
	if err := closeOthers(); err != nil {
		return nil, nil, err
	}
	for i := range lanes {
		// Nothing of Go's poller is to wake up for a lane: see along.
		if err := unix.SetNonblock(inherited+1+i, false); err != nil {
			return nil, nil, fmt.Errorf("prepare a lane: %w", err)
		}
		along = append(along, os.NewFile(uintptr(inherited+1+i), "lane"))
	}
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	return os.NewFile(inherited, "server"), along, nil
}

// closeOthers closes what the server had open without knowing, from whoever started it. What this
// process opened itself is marked to be closed on exec, so what is not marked was there before.
func closeOthers() error {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list open files: %w", err)
	}
	for _, e := range list {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= inherited {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue // the list's own is closed by now
		}
		if err := unix.Close(fd); err != nil {
			return fmt.Errorf("close what was inherited: %w", err)
		}
	}
	return nil
}

// start starts a worker. It is in namespaces of its own as far as the kernel lets this process make
// them; what it says itself tells how far that was.
func start(cfg Config, r room, log *slog.Logger) (p *process, err error) {
	made := &process{exited: make(chan struct{})}
	talk, stderr, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	theirs := []*os.File{}
	defer func() {
		closeAll(append(theirs, stderr)) // the child has them
		if err != nil {
			closeAll(append(made.lanes, made.conn, talk))
		}
	}()
	for n := range 1 + r.lanes {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return nil, fmt.Errorf("make a socket pair: %w", err)
		}
		if err := unix.SetNonblock(pair[0], n == 0 || polled(n-1)); err != nil {
			return nil, errors.Join(fmt.Errorf("prepare a socket: %w", err), unix.Close(pair[0]), unix.Close(pair[1]))
		}
		ours := os.NewFile(uintptr(pair[0]), "worker")
		theirs = append(theirs, os.NewFile(uintptr(pair[1]), "server"))
		if n == 0 {
			made.conn = ours
		} else {
			made.lanes = append(made.lanes, ours)
		}
	}
	started := make(chan error)
	go made.run(cfg, r, theirs, stderr, started)
	if err := <-started; err != nil {
		return nil, err
	}
	if err := errors.Join(made.hurries, yieldGroup(made.pid, r.yields)); err != nil {
		log.Warn("a worker could not be given a lower priority; it may slow others down", "pid", made.pid, "error", err)
	}
	made.talk.Go(func() {
		relay(talk, log)
		closeAll([]*os.File{talk})
	})
	return made, nil
}

// run starts the process and waits for it, on a thread of its own that ends with it: the kernel kills the
// worker when this very thread ends, and what the thread gives up, the worker never has.
func (p *process) run(cfg Config, r room, conns []*os.File, stderr *os.File, started chan<- error) {
	runtime.LockOSThread() // and never unlocked
	if err := renounce(); err != nil {
		started <- err
		return
	}
	p.hurries = yieldTo(r.yields)
	cmd, err := launch(cfg, r, conns, stderr)
	if err != nil {
		started <- err
		return
	}
	p.pid = cmd.Process.Pid
	p.boundMemory(cfg.Logger)
	p.kill = func() { _ = cmd.Process.Kill() } // it may have ended
	started <- nil
	_ = cmd.Wait() // the state says more than the error
	p.how = cmd.ProcessState.String()
	close(p.exited)
}

// renounce takes from the calling thread what a process that it starts is not to have.
func renounce() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	// Ambient capabilities would outlive the start of a program. Kernels before 4.3 have none.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("give up ambient capabilities: %w", err)
	}
	for c := range lastCapability {
		// Without CAP_SETPCAP it is not allowed; without new privileges it does not matter.
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
	}
	return nil
}

// launch starts the program, in as many namespaces as can be, and as nobody if it can be.
func launch(cfg Config, r room, conns []*os.File, stderr *os.File) (*exec.Cmd, error) {
	const inner = unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	var errs []error
	// A mount namespace without a root of its own would only keep the machine's mounts in use.
	for _, flags := range []uintptr{unix.CLONE_NEWUSER | unix.CLONE_NEWNS | inner, inner, 0} {
		for _, as := range users() {
			cmd := exec.Command(cfg.Program)
			cmd.Args = append(slices.Clone(cfg.Args), strconv.Itoa(len(conns)-1))
			cmd.Stderr, cmd.ExtraFiles = stderr, conns
			cmd.Dir = "/"
			cmd.Env = []string{"GOMAXPROCS=" + strconv.Itoa(r.processors), "GOTRACEBACK=single", "TZ=UTC"}
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL, Cloneflags: flags}
			as.apply(cmd.SysProcAttr)
			err := cmd.Start()
			if err == nil {
				return cmd, nil
			}
			errs = append(errs, err)
		}
	}
	return nil, fmt.Errorf("start a worker: %w", errors.Join(errs...))
}

// user is whom a worker is outside of its user namespace.
type user struct{ uid, gid int }

// users are those a worker can be, the best first: root's worker is better nobody, but there may be no
// such user where this process runs.
func users() []user {
	own := user{os.Getuid(), os.Getgid()}
	if own.uid == 0 {
		return []user{{nobody, nobody}, own}
	}
	return []user{own}
}

// apply has a process be u. Within a user namespace of its own it is nobody: whoever is root there gets
// every capability.
func (u user) apply(a *syscall.SysProcAttr) {
	change := u.uid != os.Getuid()
	if a.Cloneflags&unix.CLONE_NEWUSER != 0 {
		// Over its own namespaces alone, until it has made itself a root (confine.Enter).
		a.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: u.uid, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: u.gid, Size: 1}}
		a.GidMappingsEnableSetgroups = change
	}
	if change {
		a.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
}
