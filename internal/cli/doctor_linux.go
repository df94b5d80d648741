package cli

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"
)

const (
	// oldestKernel is the oldest Linux, major and minor, that Go 1.26 programs run on.
	oldestMajor, oldestMinor = 3, 2
	// fewFiles is what doctor calls too few open files: connections, segments of the store, watches.
	fewFiles = 4096
)

// checkMachine checks what the machine gives every server.
func checkMachine(c *checks) {
	checkKernel(c)
	checkProcessor(c)
	checkOpenFiles(c)
	checkClock(c)
}

func checkKernel(c *checks) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		c.warn("kernel", "its version cannot be read: "+err.Error(), "")
		return
	}
	release := unix.ByteSliceToString(u.Release[:])
	detail := "Linux " + release + " " + runtime.GOARCH
	if major, minor := kernelVersion(release); major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		c.fail("kernel", detail+" is too old", fmt.Sprintf("use Linux %d.%d or later", oldestMajor, oldestMinor))
		return
	}
	// What later hardening builds on; nothing fails without it today.
	const version = 1 // LANDLOCK_CREATE_RULESET_VERSION
	if abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version); errno == 0 {
		detail += fmt.Sprintf(", landlock %d", abi)
	}
	if _, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err == nil {
		detail += ", seccomp"
	}
	c.ok("kernel", "%s", detail)
}

func kernelVersion(release string) (major, minor int) {
	parts := strings.SplitN(release, ".", 3)
	if len(parts) < 2 {
		return 0, 0
	}
	digits := strings.IndexFunc(parts[1]+"x", func(r rune) bool { return r < '0' || r > '9' })
	major, err := strconv.Atoi(parts[0])
	if err != nil {
		return 0, 0
	}
	if minor, err = strconv.Atoi(parts[1][:digits]); err != nil {
		return 0, 0
	}
	return major, minor
}

// checkProcessor sees whether sealing and the sandbox's compiler have what makes them fast.
func checkProcessor(c *checks) {
	sealing := runtime.GOARCH == "amd64" && cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ ||
		runtime.GOARCH == "arm64" && cpu.ARM64.HasAES && cpu.ARM64.HasPMULL
	compiler := runtime.GOARCH == "amd64" && cpu.X86.HasSSE41 || runtime.GOARCH == "arm64"
	switch {
	case !compiler:
		c.warn("processor", "WebAssembly is interpreted here, which is many times slower", "use an amd64 or arm64 machine")
	case !sealing:
		c.warn("processor", "it has no instructions for AES, so sealing is slower", "use a machine that has them")
	default:
		c.ok("processor", "%d of %s, with AES", runtime.NumCPU(), runtime.GOARCH)
	}
}

func checkOpenFiles(c *checks) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		c.warn("open files", "their limit cannot be read: "+err.Error(), "")
		return
	}
	if l.Cur < fewFiles { // Go raises the soft limit to the hard one
		c.warn("open files", fmt.Sprintf("at most %d", l.Cur), "raise the limit: LimitNOFILE in the systemd unit, or ulimit -n")
		return
	}
	c.ok("open files", "up to %d", l.Cur)
}

// checkClock asks the kernel whether anything keeps the clock right.
func checkClock(c *checks) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	const unsynchronised = 0x40 // STA_UNSYNC
	switch {
	case err != nil:
		c.warn("clock", "the kernel does not say whether it is kept right: "+err.Error(), "")
	case state == unix.TIME_ERROR || t.Status&unsynchronised != 0:
		c.warn("clock", "nothing keeps it right", "run an NTP client, such as systemd-timesyncd or chrony")
	default:
		c.ok("clock", "kept right, within %d ms", t.Maxerror/1000)
	}
}

// freeSpace returns how many bytes can still be written in a folder.
func freeSpace(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}
