package blobgrant

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"sallyport/internal/ident"
)

// stored counts the bytes of content on the disk by namespace, with what an object takes beside it.
type stored struct {
	mu    sync.Mutex
	bytes map[ident.Namespace]int64
}

// measure counts what a folder has, as a process before this one left it.
func (s *stored) measure(dir string) error {
	s.bytes = map[ident.Namespace]int64{}
	namespaces, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, ns := range namespaces {
		err := filepath.WalkDir(filepath.Join(dir, ns.Name()), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			info, err := d.Info()
			if err == nil {
				s.bytes[ident.Namespace(ns.Name())] += info.Size() + objectCost
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *stored) add(ns ident.Namespace, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes[ns] += n
}

func (s *stored) of(ns ident.Namespace) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes[ns]
}

func (s *stored) forget(ns ident.Namespace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bytes, ns)
}
