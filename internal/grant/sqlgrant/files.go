package sqlgrant

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"

	"sallyport/internal/grant/sqlgrant/sealedfile"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// FilesConfig says where SQLite databases are kept.
type FilesConfig struct {
	// Dir is the folder; it has one folder for each namespace.
	Dir string
	// Sealer returns what seals the databases of a namespace.
	Sealer func(ctx context.Context, ns ident.Namespace) (sealedfile.Sealer, error)
	// Space returns an error when the disk has no room for more; nil is never.
	Space func() error
	// Roots returns what keeps the roots of the databases of a namespace; without it, an older copy of a file is not noticed.
	Roots  func(ctx context.Context, ns ident.Namespace) (Roots, error)
	Logger *slog.Logger
}

// Files keeps the SQLite databases of all namespaces. Each is open once, however many grants use it. It is safe for
// concurrent use. Only one process may use a folder.
type Files struct {
	cfg FilesConfig
	vfs string // what SQLite knows the sealed files by

	mu      sync.Mutex // held while a database is opened or closed
	opened  map[string]*lite
	handles map[string]*sealedDB // what the next Open of the vfs returns
}

// made counts the Files of this process, whose names at SQLite differ.
var made atomic.Int64

// NewFiles returns the databases of a folder. Close ends them.
func NewFiles(cfg FilesConfig) (*Files, error) {
	if cfg.Dir == "" || cfg.Sealer == nil {
		return nil, errors.New("files of SQLite need a folder and a sealer")
	}
	if cfg.Space == nil {
		cfg.Space = func() error { return nil }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Files{cfg: cfg, vfs: fmt.Sprintf("sealed%d", made.Add(1)), opened: map[string]*lite{}, handles: map[string]*sealedDB{}}
	vfs.Register(f.vfs, sealedVFS{f})
	return f, nil
}

// Close closes the databases that are open. No door uses them any more.
func (f *Files) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for name, l := range f.opened {
		errs = append(errs, l.end())
		delete(f.opened, name)
	}
	vfs.Unregister(f.vfs)
	return errors.Join(errs...)
}

// open returns a database for one door, and makes its tables.
func (f *Files) open(ctx context.Context, ns ident.Namespace, g *manifest.SQLGrant) (database, error) {
	name := string(ns) + "/" + g.SQLite // neither has a slash
	l, err := f.take(ctx, ns, name)
	if err != nil {
		return nil, err
	}
	if err := l.setUp(ctx, g); err != nil {
		return nil, errors.Join(err, f.release(l))
	}
	return &share{lite: l, files: f}, nil
}

// there returns a database when there is one, and else nil.
func (f *Files) there(ctx context.Context, ns ident.Namespace, name string) (*lite, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opened[name] == nil {
		if _, err := os.Stat(f.path(name)); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			return nil, err
		}
	}
	return f.takeLocked(ctx, ns, name)
}

// path returns the file of a database.
func (f *Files) path(name string) string {
	return filepath.Join(f.cfg.Dir, filepath.FromSlash(name)+".sealed")
}

func (f *Files) take(ctx context.Context, ns ident.Namespace, name string) (*lite, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.takeLocked(ctx, ns, name)
}

func (f *Files) takeLocked(ctx context.Context, ns ident.Namespace, name string) (*lite, error) {
	if l := f.opened[name]; l != nil {
		l.doors++
		return l, nil
	}
	sealer, err := f.cfg.Sealer(ctx, ns)
	if err != nil {
		return nil, err
	}
	path := f.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of database %s: %w", name, err)
	}
	sealed, a, err := f.openSealed(ctx, ns, name, path, sealer)
	if err != nil {
		return nil, unreadable(name, err)
	}
	f.handles[name] = &sealedDB{file: sealed, anchor: a}
	defer delete(f.handles, name)
	l, err := openLite(name, f.vfs, sealed, f.cfg.Space)
	if err != nil {
		return nil, unreadable(name, errors.Join(sealed.Damage(), err, sealed.Close(), a.end(sealed.Root())))
	}
	l.anchor = a
	l.doors = 1
	f.opened[name] = l
	return l, nil
}

// unreadable is a database that does not open.
func unreadable(name string, err error) error {
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p
	}
	if errors.Is(err, sealedfile.ErrDamaged) {
		return problem.New(problem.Internal, "grant.sql_damaged", "the database %s is damaged", name).
			WithHint("restore the data directory from a backup, keys and databases together").WithCause(err)
	}
	return fmt.Errorf("open database %s: %w", name, err)
}

// release gives a database back; the last door closes it.
func (f *Files) release(l *lite) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opened[l.name] != l {
		return nil // it was removed, and another may have its name
	}
	if l.doors--; l.doors > 0 {
		return nil
	}
	delete(f.opened, l.name)
	return l.end()
}

// Remove removes the databases of a namespace from the disk. Doors that still have one get no answer from it any more.
func (f *Files) Remove(ns ident.Namespace) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, l := range f.opened {
		if strings.HasPrefix(name, string(ns)+"/") {
			delete(f.opened, name)
			l.removed = true
			_ = l.end() // its keys are gone, so it cannot be closed well, and need not be
		}
	}
	return os.RemoveAll(filepath.Join(f.cfg.Dir, string(ns)))
}

// share is a door's part of a database.
type share struct {
	*lite
	files *Files
}

// Close gives the database back.
func (s *share) Close() error { return s.files.release(s.lite) }

// sealedVFS is how SQLite reaches the sealed files, and nothing else: no journal, no temporary file and no other database.
type sealedVFS struct{ files *Files }

// Open returns the file that take has prepared. Files.mu is held.
func (v sealedVFS) Open(name string, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	db := v.files.handles[name]
	if db == nil || flags&vfs.OPEN_MAIN_DB == 0 {
		return nil, 0, sqlite3.CANTOPEN
	}
	return db, flags, nil
}

// Delete finds nothing: there are no journals.
func (sealedVFS) Delete(string, bool) error { return sqlite3.IOERR_DELETE_NOENT }

// Access finds nothing: there are no journals.
func (sealedVFS) Access(string, vfs.AccessFlag) (bool, error) { return false, nil }

// FullPathname returns the name as it is.
func (sealedVFS) FullPathname(name string) (string, error) { return name, nil }

// sealedDB is a sealed file as SQLite sees it. One connection has it alone, so its locks are words.
type sealedDB struct {
	file   *sealedfile.File
	anchor *anchor
}

func (d *sealedDB) ReadAt(b []byte, offset int64) (int, error) {
	page, from := offset/sealedfile.PageSize, int(offset%sealedfile.PageSize)
	content, err := d.file.Read(page)
	if err != nil {
		return 0, ioError(err, sqlite3.IOERR_READ)
	}
	n := copy(b, content[from:])
	if n < len(b) {
		return n, io.EOF // SQLite does not read across pages
	}
	return n, nil
}

func (d *sealedDB) WriteAt(b []byte, offset int64) (int, error) {
	if offset%sealedfile.PageSize != 0 {
		return 0, sqlite3.IOERR_WRITE
	}
	if err := d.file.Write(offset/sealedfile.PageSize, b); err != nil {
		return 0, ioError(err, sqlite3.IOERR_WRITE)
	}
	return len(b), nil
}

func (d *sealedDB) Truncate(size int64) error {
	return ioError(d.file.Truncate((size+sealedfile.PageSize-1)/sealedfile.PageSize), sqlite3.IOERR_TRUNCATE)
}

// Sync is SQLite's commit: its journal is in memory, so nothing is synced before that.
func (d *sealedDB) Sync(vfs.SyncFlag) error {
	if err := d.file.Commit(); err != nil {
		return ioError(err, sqlite3.IOERR_FSYNC)
	}
	d.anchor.note(d.file.Root())
	return nil
}

func (d *sealedDB) Size() (int64, error)                            { return d.file.Pages() * sealedfile.PageSize, nil }
func (d *sealedDB) Close() error                                    { return nil } // its owner closes it
func (d *sealedDB) Lock(vfs.LockLevel) error                        { return nil }
func (d *sealedDB) Unlock(vfs.LockLevel) error                      { return nil }
func (d *sealedDB) CheckReservedLock() (bool, error)                { return false, nil }
func (d *sealedDB) SectorSize() int                                 { return sealedfile.PageSize }
func (d *sealedDB) DeviceCharacteristics() vfs.DeviceCharacteristic { return 0 }

// ioError gives SQLite an error that it understands, with the cause for the log.
func ioError(err error, code sqlite3.ExtendedErrorCode) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return vfs.SystemError(err, code)
}
