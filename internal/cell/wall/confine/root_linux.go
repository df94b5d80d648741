package confine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

const (
	// Folder is the one folder of a process that has a root of its own, for compiled code on its way into
	// the engine.
	Folder = "/code"
	// rootOptions bound what can be in it: the code of the largest module, some entries, nobody else's.
	rootOptions = "size=768m,nr_inodes=256,mode=0755"
	// largePages makes writing and reading 15 MB of code twice as fast, where the kernel has such pages.
	largePages = ",huge=within_size"
	procFolder = "proc"
)

// Root is what Enter made.
type Root struct {
	// Own is true when the process has a root of its own: then the only folder is Folder, and /proc until
	// Apply.
	Own bool
	// why says why not.
	why error
}

// Enter gives the process a root of its own, a file system in memory with nothing in it, and lets go of all
// others: it names no file of the machine, and holds none in use, which a mount namespace otherwise does for as long as
// it lives. It needs a mount namespace of its own and CAP_SYS_ADMIN in it, which Apply gives back. Without
// them it changes nothing and says so in the report.
func Enter() Root {
	has, err := cap.GetProc().GetFlag(cap.Effective, cap.SYS_ADMIN)
	switch {
	case err != nil:
		return Root{why: fmt.Errorf("read the capabilities: %w", err)}
	case !has:
		return Root{why: errors.New("the kernel lets this process make no user namespace with a mount namespace in it")}
	}
	if err := enter(); err != nil {
		return Root{why: err}
	}
	return Root{Own: true}
}

// enter follows pivot_root(2), where "." stands for the new root and the old one in turn.
func enter() error {
	// What is mounted from here on is nobody else's business, and the other way round.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("part from the mounts of the machine: %w", err)
	}
	at, err := mountPoint()
	if err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	err = unix.Mount("sallyport", at, "tmpfs", flags, rootOptions+largePages)
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("sallyport", at, "tmpfs", flags, rootOptions)
	}
	if err != nil {
		return fmt.Errorf("mount a root: %w", err)
	}
	if err := furnish(at); err != nil {
		return errors.Join(err, unix.Unmount(at, unix.MNT_DETACH))
	}
	if err := unix.Chdir(at); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return errors.Join(fmt.Errorf("change the root: %w", err), unix.Chdir("/"), unix.Unmount(at, unix.MNT_DETACH))
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the old root: %w", err)
	}
	return unix.Chdir("/")
}

// mountPoint returns a folder that the new root can be mounted on, for the moment until it is the root.
func mountPoint() (string, error) {
	var errs []error
	for _, name := range []string{os.TempDir(), "/mnt", "/run", "/dev"} {
		info, err := os.Stat(name)
		if err == nil && info.IsDir() {
			return name, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("find a folder to mount a root on: %w", errors.Join(errs...))
}

// furnish makes what is in the root: a folder, and /proc for as long as the engine is being opened.
func furnish(at string) error {
	if err := os.Mkdir(filepath.Join(at, Folder), 0o700); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	proc := filepath.Join(at, procFolder)
	if err := os.Mkdir(proc, 0o500); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	if err := unix.Mount("/proc", proc, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("keep /proc for the start: %w", err)
	}
	return nil
}

// shut takes /proc away, and then the capability, on every thread.
func (r Root) shut() error {
	var errs []error
	if r.Own {
		if err := unix.Unmount("/"+procFolder, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("let go of /proc: %w", err))
		} else {
			errs = append(errs, os.Remove("/"+procFolder))
		}
	}
	return errors.Join(append(errs, cap.NewSet().SetProc())...)
}

// try returns nil when the root holds.
func (r Root) try() error {
	if !r.Own {
		return r.why
	}
	list, err := os.ReadDir("/")
	if err != nil {
		return fmt.Errorf("look at the root: %w", err)
	}
	if len(list) != 1 || "/"+list[0].Name() != Folder {
		return fmt.Errorf("it does not hold: there are %d things in it besides %s", len(list)-1, Folder)
	}
	if err := unix.Mount("none", Folder, "tmpfs", 0, ""); !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("it does not hold: a mount was not refused (%v)", err)
	}
	return nil
}
