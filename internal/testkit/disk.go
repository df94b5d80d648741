package testkit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Disk is a small file system of its own, on a loop device, that a test may fill or cut the power of.
type Disk struct {
	// Path is where it is mounted.
	Path  string
	image string
}

// NewDisk makes an ext4 file system of mib mebibytes and mounts it. It needs root and a loop device;
// without them the test is skipped, saying so, unless SALLYPORT_REQUIRE_DISK is set.
func NewDisk(t testing.TB, mib int) *Disk {
	t.Helper()
	d := &Disk{Path: filepath.Join(t.TempDir(), "disk"), image: filepath.Join(t.TempDir(), "disk.img")}
	if err := d.create(mib); err != nil {
		if os.Getenv("SALLYPORT_REQUIRE_DISK") != "" {
			t.Fatalf("make a test disk: %v", err)
		}
		t.Skipf("NOT TESTED: this needs root, mkfs.ext4 and a loop device: %v", err)
	}
	t.Cleanup(func() {
		if err := d.unmount(); err != nil {
			t.Errorf("unmount the test disk: %v", err)
		}
	})
	return d
}

func (d *Disk) create(mib int) error {
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	if err := os.Mkdir(d.Path, 0o700); err != nil {
		return err
	}
	if err := command("truncate", "-s", strconv.Itoa(mib)+"M", d.image); err != nil {
		return err
	}
	if err := command("mkfs.ext4", "-q", "-F", "-m", "0", d.image); err != nil {
		return err
	}
	return d.mount()
}

func (d *Disk) mount() error   { return command("mount", "-o", "loop", d.image, d.Path) }
func (d *Disk) unmount() error { return command("umount", d.Path) }

// CutPower drops every page that has not been synced, as a power cut does: the file system is shut
// down without flushing its journal. Nothing can be written from then on, until Restore.
func (d *Disk) CutPower() error {
	const (
		fsIocShutdown   = 0x8004587d // FS_IOC_SHUTDOWN, _IOR('X', 125, __u32)
		noLogFlush      = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH
		openForShutdown = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	)
	fd, err := unix.Open(d.Path, openForShutdown, 0)
	if err != nil {
		return fmt.Errorf("open the mount point: %w", err)
	}
	err = unix.IoctlSetPointerInt(fd, fsIocShutdown, noLogFlush)
	return errors.Join(err, unix.Close(fd))
}

// Restore mounts the file system again, after every process that used it is gone. A worker process of any server has
// a mount namespace of its own, and in it the file system, as it was shut down, for the moment until it has a root of its own:
// until then a mount gives that one again.
func (d *Disk) Restore() error {
	const (
		patience = 10 * time.Second
		pause    = 20 * time.Millisecond
	)
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		if err := errors.Join(d.unmount(), d.mount()); err != nil {
			return err
		}
		err := d.usable()
		if err == nil || time.Since(began) > patience {
			return err
		}
	}
}

// usable returns nil when a file can be made.
func (d *Disk) usable() error {
	f, err := os.CreateTemp(d.Path, "usable-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return nil
}

// Free returns how many bytes can still be written.
func (d *Disk) Free() (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(d.Path, &s); err != nil {
		return 0, fmt.Errorf("ask for free space: %w", err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil // which is an int64 here and a uint32 elsewhere
}
