package cell

import (
	"crypto/rand"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"io"
	"os"
)

// ProgramID identifies this very program: compiled code and templates are its work, and another one may
// make them otherwise. It is the build id that the linker wrote, or the digest of the file where there is none;
// when neither can be read it is a new one each time, and nothing that was kept is found again.
func ProgramID() string {
	// The path of the file may lead elsewhere by now, or nowhere: in a root of its own a process has no other name
	// for its program.
	path := "/proc/self/exe"
	if _, err := os.Stat(path); err != nil {
		if path, err = os.Executable(); err != nil {
			return rand.Text()
		}
	}
	if id := buildID(path); id != "" {
		return id
	}
	file, err := os.Open(path)
	if err != nil {
		return rand.Text()
	}
	defer func() { _ = file.Close() }() // it was only read
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return rand.Text()
	}
	return hex.EncodeToString(h.Sum(nil))
}

// buildID returns what Go's linker notes in an ELF file, or nothing.
func buildID(path string) string {
	const section, head = ".note.go.buildid", 16 // the sizes of name and id, a type, the name "Go"
	file, err := elf.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }() // it was only read
	s := file.Section(section)
	if s == nil {
		return ""
	}
	note, err := s.Data()
	if err != nil || len(note) <= head {
		return ""
	}
	return string(note[head:])
}
