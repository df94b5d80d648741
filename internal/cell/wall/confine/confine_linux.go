package confine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Limits of the process's resources. There is none on its address space: the Go runtime and every
// guest memory reserve much more of it than they use, and none on processes, which the kernel counts
// over all processes of a user: seccomp lets it make threads only.
const (
	// maxFiles fits what the runtime and the engine hold open, and one memory file for each function
	// where memories are reset by mapping them anew.
	maxFiles = 1024
	// maxFileBytes is the largest memory of a guest: such a memory file counts as one.
	maxFileBytes = 512 << 20
)

// Apply confines the process, for good. An error means that it could not even try; walls that the
// kernel does not have are in the report. What the engine needs open MUST be open before. Root is what
// Enter returned; the zero value stands for a process that keeps the root it has.
func Apply(root Root) (Report, error) {
	r := Report{Namespaces: Namespaces()}
	// Read afterwards: nothing can be opened then.
	status, err := os.Open("/proc/self/status")
	if err != nil {
		return r, fmt.Errorf("open the process's status: %w", err)
	}
	defer func() { _ = status.Close() }() // it was only read
	r.add(NameLimits, setLimits(), fmt.Sprintf("no core dumps, %d open files", maxFiles))
	// Other processes of the user cannot read its memory, nor it be dumped.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return r, fmt.Errorf("make the process undumpable: %w", err)
	}
	if err := root.shut(); err != nil {
		return r, fmt.Errorf("give up what the start needed: %w", err)
	}
	r.add(NameRoot, root.try(), "a file system of its own, in memory and empty")
	detail, err := shutFiles(root)
	r.add(NameFiles, err, detail)
	r.add(NameCalls, filterCalls(root), "files, sockets and programs were tried: refused")
	text, err := io.ReadAll(io.NewSectionReader(status, 0, 1<<16))
	if err != nil {
		return r, fmt.Errorf("read the process's status: %w", err)
	}
	fields := parseStatus(string(text))
	r.add(NamePrivileges, fields.want("NoNewPrivs", "1"), "none can be gained")
	r.add(NameCapabilities, errors.Join(fields.empty("CapInh"), fields.empty("CapPrm"), fields.empty("CapEff"), fields.empty("CapAmb")), "none")
	return r, nil
}

func setLimits() error {
	var errs []error
	for _, l := range []struct {
		name     string
		resource int
		most     uint64
	}{
		{"core", unix.RLIMIT_CORE, 0}, {"open files", unix.RLIMIT_NOFILE, maxFiles}, {"file size", unix.RLIMIT_FSIZE, maxFileBytes},
		{"locked memory", unix.RLIMIT_MEMLOCK, 0}, {"message queues", unix.RLIMIT_MSGQUEUE, 0},
		{"real-time priority", unix.RLIMIT_RTPRIO, 0},
	} {
		var now unix.Rlimit
		if err := unix.Getrlimit(l.resource, &now); err != nil {
			errs = append(errs, fmt.Errorf("read the limit of %s: %w", l.name, err))
			continue
		}
		most := min(l.most, now.Max)
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			errs = append(errs, fmt.Errorf("limit %s: %w", l.name, err))
		}
	}
	return errors.Join(errs...)
}

// codeRights are what an engine does in the folder for compiled code.
const codeRights landlock.AccessFSSet = landlocksys.AccessFSReadFile | landlocksys.AccessFSWriteFile | landlocksys.AccessFSTruncate |
	landlocksys.AccessFSMakeReg | landlocksys.AccessFSRemoveFile | landlocksys.AccessFSReadDir | landlocksys.AccessFSMakeDir | landlocksys.AccessFSRemoveDir

// shutFiles takes every right over files, TCP and UDP ports and other processes' sockets and signals that
// this kernel's Landlock knows, but for the folder of a root of its own.
func shutFiles(root Root) (detail string, err error) {
	version, err := landlocksys.LandlockGetABIVersion()
	if err != nil {
		return "", errors.New("this kernel has no Landlock")
	}
	var rules []landlock.Rule
	detail = fmt.Sprintf("version %d, no file may be opened", version)
	if root.Own {
		rules = append(rules, landlock.PathAccess(codeRights, Folder))
		detail = fmt.Sprintf("version %d, no file may be opened but in its own %s", version, Folder)
	}
	if err := landlock.V11.BestEffort().Restrict(rules...); err != nil {
		return "", fmt.Errorf("restrict: %w", err)
	}
	fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		return "", errors.Join(errors.New("it does not hold: a folder could be opened"), unix.Close(fd))
	}
	if !errors.Is(err, unix.EACCES) {
		return "", fmt.Errorf("try to open a folder: %w", err)
	}
	return detail, nil
}

// Namespaces returns the process's namespaces, those that cannot be read left out.
func Namespaces() []string {
	var out []string
	for _, name := range []string{"user", "pid", "net", "ipc", "uts", "mnt"} {
		if link, err := os.Readlink("/proc/self/ns/" + name); err == nil {
			out = append(out, link)
		}
	}
	return out
}

// status is what /proc/self/status says.
type status map[string]string

func parseStatus(text string) status {
	s := status{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		s[name] = strings.TrimSpace(value)
	}
	return s
}

func (s status) want(name, value string) error {
	if got := s[name]; got != value {
		return fmt.Errorf("%s is %q, want %s", name, got, value)
	}
	return nil
}

// empty reports an error unless a set of bits is there and empty.
func (s status) empty(name string) error {
	if bits := s[name]; bits == "" || strings.Trim(bits, "0") != "" {
		return fmt.Errorf("%s is %q, want none", name, bits)
	}
	return nil
}
