//go:build linux && (amd64 || arm64)

package snapshot

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the kernel's headers linux/userfaultfd.h and linux/fs.h define and x/sys/unix does not. The
// structures are laid out as C does it on a 64-bit machine, and the numbers of the ioctls, which
// hold the sizes of the structures, are those of amd64 and arm64.
const (
	uffdUserModeOnly   = 1
	uffdAPI            = 0xaa
	uffdWPUnpopulated  = 1 << 13
	uffdWPAsync        = 1 << 15
	uffdRegisterModeWP = 1 << 1
	uffdWriteProtectOn = 1 << 0
	uffdCopyProtected  = 1 << 1

	uffdioAPI          = 0xc018aa3f
	uffdioRegister     = 0xc020aa00
	uffdioCopy         = 0xc028aa03
	uffdioWriteProtect = 0xc018aa06
	pagemapScan        = 0xc0606610

	scanWriteProtect = 1 << 0 // protect what is found
	scanCheckAsync   = 1 << 1 // fail where the range is not registered

	isWritten  = 1 << 1 // or not protected, which is the same here
	isPresent  = 1 << 3
	isSwapped  = 1 << 4
	isZeroPage = 1 << 5 // read and never written: the page of zeros that all processes share
)

type uffdioAPIArg struct{ api, features, ioctls uint64 }

type uffdioRegisterArg struct{ start, length, mode, ioctls uint64 }

type uffdioWriteProtectArg struct{ start, length, mode uint64 }

type uffdioCopyArg struct {
	to     uint64
	from   *byte
	length uint64
	mode   uint64
	copied int64
}

// region is pages in sequence that are of the same categories.
type region struct{ start, end, categories uint64 }

// pagemapScanArg is struct pm_scan_arg, with the address of the answer as a pointer, so that the
// garbage collector sees it.
type pagemapScanArg struct {
	size, flags      uint64
	start, end       uint64
	walkEnd          uint64
	found            *region
	room, maxPages   uint64
	inverted, all    uint64
	anyOf, reporting uint64
}

// query is what a scan looks for: pages of all, and one or more of anyOf.
type query struct{ flags, all, anyOf, reporting uint64 }

// existing finds the pages that exist.
func existing() query {
	return query{flags: scanCheckAsync, anyOf: isPresent | isSwapped, reporting: isPresent}
}

// writtenDense finds the pages that are not protected. It MUST be exactly this query: for it, the
// kernel has a loop of its own, which is twice as fast.
func writtenDense() query {
	return query{flags: scanCheckAsync, all: isWritten, reporting: isWritten}
}

// writtenSparse finds the pages that exist and are not protected.
func writtenSparse() query {
	return query{flags: scanCheckAsync, all: isWritten, anyOf: isPresent | isSwapped, reporting: isWritten | isZeroPage}
}

// protectExisting protects the pages that exist, and finds them.
func protectExisting() query {
	return query{flags: scanCheckAsync | scanWriteProtect, all: isWritten, anyOf: isPresent | isSwapped, reporting: isWritten}
}

// userfaultfd opens a userfaultfd that protects without anyone having to answer faults. It asks for
// faults of user code only, which is what an unprivileged process may have.
func userfaultfd() (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|uffdUserModeOnly, 0, 0)
	if errno != 0 {
		return -1, fmt.Errorf("userfaultfd: %w", errno)
	}
	arg := uffdioAPIArg{api: uffdAPI, features: uffdWPAsync | uffdWPUnpopulated}
	// unsafe: the kernel reads and writes arg, which is laid out as it expects, during the call only.
	if err := ioctl(int(fd), uffdioAPI, unsafe.Pointer(&arg)); err != nil {
		return int(fd), fmt.Errorf("ioctl(UFFDIO_API) for asynchronous write protection: %w", err)
	}
	return int(fd), nil
}

// register has the userfaultfd see to space. Unmapping it ends that.
func (k *kernel) register(space []byte) error {
	arg := uffdioRegisterArg{start: address(space), length: uint64(len(space)), mode: uffdRegisterModeWP}
	// unsafe: as in userfaultfd. What the kernel does with the range leaves its content as it is.
	if err := ioctl(k.uffd, uffdioRegister, unsafe.Pointer(&arg)); err != nil {
		return fmt.Errorf("ioctl(UFFDIO_REGISTER): %w", err)
	}
	return nil
}

// writeProtect protects the pages of memory, also those that do not exist, or ends that.
func (k *kernel) writeProtect(memory []byte, on bool) error {
	arg := uffdioWriteProtectArg{start: address(memory), length: uint64(len(memory))}
	if on {
		arg.mode = uffdWriteProtectOn
	}
	// unsafe: as in register.
	if err := ioctl(k.uffd, uffdioWriteProtect, unsafe.Pointer(&arg)); err != nil {
		return fmt.Errorf("ioctl(UFFDIO_WRITEPROTECT): %w", err)
	}
	return nil
}

// create has the kernel make pages that do not exist, protected and with this content, which is of
// whole pages, at the beginning of memory. It returns how many bytes it did, which may be fewer.
func (k *kernel) create(memory, content []byte) int {
	arg := uffdioCopyArg{
		to: address(memory), from: unsafe.SliceData(content), length: uint64(len(content)), mode: uffdCopyProtected,
	}
	// unsafe: as in userfaultfd; and the kernel reads length bytes at from, which arg keeps alive, and
	// writes as many at the beginning of memory, which must be as long. Its answer says how far it
	// came before an error, which is why the error does not matter.
	_ = ioctl(k.uffd, uffdioCopy, unsafe.Pointer(&arg))
	return int(max(arg.copied, 0))
}

// scan has the kernel look through the pages of memory, which is not empty. It returns how many
// regions were found and how much of memory they are the answer for: all of it, unless there was no
// room for more regions.
func (k *kernel) scan(memory []byte, q query, found []region) (regions, walked int, err error) {
	arg := pagemapScanArg{
		size: uint64(unsafe.Sizeof(pagemapScanArg{})), flags: q.flags,
		start: address(memory), end: address(memory) + uint64(len(memory)),
		found: unsafe.SliceData(found), room: uint64(len(found)),
		all: q.all, anyOf: q.anyOf, reporting: q.reporting,
	}
	// unsafe: as in userfaultfd; and the kernel writes at most room regions at found, which arg keeps
	// alive, and which does not move, being on the heap.
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(k.pagemap), pagemapScan, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return 0, 0, fmt.Errorf("ioctl(PAGEMAP_SCAN): %w", errno)
	}
	if arg.walkEnd <= arg.start || arg.walkEnd > arg.end || n > uintptr(len(found)) {
		panic("BUG: PAGEMAP_SCAN did not walk")
	}
	return int(n), int(arg.walkEnd - arg.start), nil
}

// protectAll protects every page of memory, also those that do not exist, so that writtenDense does
// not find them.
func (k *kernel) protectAll(memory []byte) error {
	_, walked, err := k.scan(memory, query{flags: scanCheckAsync | scanWriteProtect, all: isWritten, reporting: isWritten}, nil)
	if err == nil && walked != len(memory) {
		panic("BUG: PAGEMAP_SCAN did not protect all of the memory")
	}
	return err
}

// address returns where memory, which is not empty, begins, as the kernel is told. unsafe: memory is
// mapped outside of the heap of Go, so its address is its address until it is unmapped.
func address(memory []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(memory)))) }

// ioctl is ioctl(2) for a structure. It is called again when a signal interrupted it.
func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
