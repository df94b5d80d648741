package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"sallyport/api"
	"sallyport/internal/grant"
	"sallyport/internal/grant/blobgrant"
	"sallyport/internal/grant/httpgrant"
	"sallyport/internal/grant/identitygrant"
	"sallyport/internal/grant/kvgrant"
	"sallyport/internal/grant/secretgrant"
	"sallyport/internal/grant/sqlgrant"
	"sallyport/internal/grant/sqlgrant/sealedfile"
	"sallyport/internal/ident"
	"sallyport/internal/keyring"
	"sallyport/internal/manifest"
	"sallyport/internal/meter"
	"sallyport/internal/problem"
	"sallyport/internal/redact"
)

// grants returns what the doors of functions are made of: the one place that says which kinds of grants this server has.
func (s *server) grants() grant.Config {
	cfg := grant.Config{
		Kinds: grant.Registry{
			manifest.KindInvoke:   grant.Invokes(s.spaces),
			manifest.KindSecret:   secretgrant.Kind{Secrets: s.secrets},
			manifest.KindHTTP:     httpgrant.Kind{},
			manifest.KindKV:       s.kv,
			manifest.KindBlob:     s.blobs,
			manifest.KindSQL:      sqlgrant.New(s.databases),
			manifest.KindIdentity: identitygrant.Kind{Mint: s.mint},
		},
		Secrets: s.secrets,
		Gate:    s.spaces,
		Used:    s.spaces.usedGrant,
		Logger:  s.log,
		Runners: &s.runners,
	}
	if d := s.cfg.Doubles; d != nil {
		d.RedactBy(s.redactUse)
		cfg.Stand = d
		cfg.Used = func(u grant.Used) {
			s.spaces.usedGrant(u)
			d.Used(context.Background(), &u)
		}
	}
	return cfg
}

// redactUse takes the secrets of a function out of what is recorded of its uses. What cannot be looked at is not recorded.
func (s *server) redactUse(ctx context.Context, ns ident.Namespace, function ident.FunctionName, text []byte) []byte {
	f, err := s.deployer.State(ns).Function(function)
	if err == nil {
		var set *redact.Set
		if set, err = s.redactor(ns)(ctx, f); err == nil {
			return set.JSON(text)
		}
	}
	s.log.ErrorContext(ctx, "look up what is to be hidden of a use", "function", string(function), "error", err)
	return []byte(`{}`)
}

// blobsName is the folder of the content of blobs in the data directory; it has one folder for each namespace.
const blobsName = "blobs"

// blobBucketName returns what the store calls the names in a bucket of blobs; no namespace has a dot in its name.
func blobBucketName(ns ident.Namespace, name string) string { return "blob-" + string(ns) + "." + name }

// openBlobs opens the buckets of blobs: content in files of the data directory, names in the store, all of it sealed.
func (s *server) openBlobs() (err error) {
	s.blobs, err = blobgrant.New(blobgrant.Config{
		Dir:   filepath.Join(s.dir, blobsName),
		Space: s.engine.Room,
		Admit: func(ctx context.Context, ns ident.Namespace, n int64) (func(), error) {
			if err := (kept{s}).MeasureKept(ctx, ns); err != nil {
				return nil, err
			}
			return s.keep(ns, n)
		},
		Open: func(ctx context.Context, ns ident.Namespace, name string) (blobgrant.Place, error) {
			sealer, err := s.keys.Sealer(ctx, ns, "blob")
			if err != nil {
				return blobgrant.Place{}, err
			}
			bucket, err := s.engine.Bucket(ctx, blobBucketName(ns, name), sealer)
			return blobgrant.Place{Names: bucket, Sealer: sealer, Hide: hider(sealer, name)}, err
		},
		Logger: s.log,
	})
	return err
}

// hider returns what makes of a key in a bucket a digest under the sealer's key.
func hider(sealer *keyring.Sealer, bucket string) func(key string) string {
	return func(key string) string {
		digest := sealer.MACStrings(bucket, key)
		return hex.EncodeToString(digest[:])
	}
}

// sqliteName is the folder of databases in the data directory; it has one folder for each namespace.
const sqliteName = "sqlite"

// kvPrefix begins the names of the buckets of functions in the store.
const kvPrefix = "kv-"

// kvBucketName returns what the store calls a bucket of functions; no namespace has a dot in its name.
func kvBucketName(ns ident.Namespace, name string) string { return kvPrefix + string(ns) + "." + name }

// kvBucket opens a bucket of functions. Its keys are often those of people, so the disk gets a keyed digest of each.
func (s *server) kvBucket(ctx context.Context, ns ident.Namespace, name string) (kvgrant.Storage, func(key string) string, error) {
	sealer, err := s.keys.Sealer(ctx, ns, "kv")
	if err != nil {
		return nil, nil, err
	}
	bucket, err := s.engine.Bucket(ctx, kvBucketName(ns, name), sealer)
	return bucket, hider(sealer, name), err
}

// keep takes n bytes on the quota of what a namespace stores: the registry is opened after what asks for it.
func (s *server) keep(ns ident.Namespace, n int64) (done func(), err error) {
	return s.registry.Keep(ns, n)
}

// kvNames returns the buckets of functions of a namespace. All are listed at once, at the first need: those made later are counted as they grow.
func (s *server) kvNames(ctx context.Context, ns ident.Namespace) ([]string, error) {
	s.kvFound.Lock()
	defer s.kvFound.Unlock()
	if s.kvFound.names == nil {
		found, err := s.engine.BucketNames(ctx, kvPrefix)
		if err != nil {
			return nil, err
		}
		s.kvFound.names = map[ident.Namespace][]string{}
		for _, name := range found {
			of, bucket, _ := strings.Cut(strings.TrimPrefix(name, kvPrefix), ".")
			s.kvFound.names[ident.Namespace(of)] = append(s.kvFound.names[ident.Namespace(of)], bucket)
		}
	}
	return s.kvFound.names[ns], nil
}

// openDatabases opens the SQLite databases of functions, sealed, in the data directory.
func (s *server) openDatabases() (err error) {
	s.databases, err = sqlgrant.NewFiles(sqlgrant.FilesConfig{
		Dir:   filepath.Join(s.dir, sqliteName),
		Space: s.engine.Room,
		Sealer: func(ctx context.Context, ns ident.Namespace) (sealedfile.Sealer, error) {
			return s.keys.Sealer(ctx, ns, "sqlite")
		},
		Roots: func(ctx context.Context, ns ident.Namespace) (sqlgrant.Roots, error) {
			return s.bucket(ctx, ns, databasesBucket)
		},
		Ready:  kept{s}.MeasureKept,
		Admit:  s.keep,
		Logger: s.log,
	})
	if err != nil {
		return err
	}
	s.later(s.databases.Close)
	return nil
}

// databases is httpapi.Databases.
type databases struct{ *server }

// Accept has a database go on with an older file.
func (d databases) Accept(ctx context.Context, ns ident.Namespace, name string) (*api.DatabaseAccepted, error) {
	a, err := d.server.databases.Accept(ctx, ns, name)
	if err != nil {
		return nil, err
	}
	return &api.DatabaseAccepted{Name: name, Gone: a.Gone, Recorded: a.Known, RecordedAt: a.Recorded, Found: a.Found}, nil
}

// MayUse implements grant.Gate.
func (x *spaces) MayUse(ctx context.Context, q *grant.Question) error {
	return x.intake.MayUse(ctx, q)
}

// MayInvoke implements grant.Invoker.
func (x *spaces) MayInvoke(ctx context.Context, c *grant.Caller, function ident.FunctionName) error {
	return x.intake.MayCall(ctx, c, function)
}

// InvokeFor implements grant.Invoker: the call is an event, whose outcome is waited for.
func (x *spaces) InvokeFor(ctx context.Context, c *grant.Caller, function ident.FunctionName, data []byte) (jsontext.Value, error) {
	sp, err := x.get(c.Namespace)
	if err != nil {
		return nil, err
	}
	pos, err := x.intake.Call(ctx, c, function, data)
	if err != nil {
		return nil, err
	}
	_, reply, err := sp.Dispatch.Await(ctx, pos)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, problem.New(problem.Timeout, "grant.still_pending", "the function %s was called, and has not replied yet", function).
			WithHint("raise limits.timeout of the grant, or have the function called handle an event that is published")
	case err != nil:
		return nil, fmt.Errorf("wait for the function %s: %w", function, err)
	case reply == nil:
		return nil, problem.New(problem.FunctionFailed, "grant.reply_lost", "the function %s was called, and what came of it is not known any more", function)
	case reply.Problem != nil:
		return nil, reply.Problem
	}
	return reply.Value, nil
}

// usedGrant counts a use of a grant.
func (x *spaces) usedGrant(u grant.Used) {
	x.server.metrics.GrantUsed(string(u.Caller.Namespace), u.Kind, u.Code, u.Took)
	sp, err := x.get(u.Caller.Namespace)
	if err != nil {
		return // the namespace is being closed
	}
	k := meter.UseKey{Function: u.Caller.Function, Revision: u.Caller.Revision, Grant: u.Caller.Grant, Kind: u.Kind}
	sp.uses.Record(k, time.Now(), meter.Use{Failed: u.Code != "", Denied: u.Err != nil && problem.From(u.Err).Kind == problem.Denied, Took: u.Took, In: u.In, Out: u.Out})
}

// lastUsed returns when a function used a grant last, as far as it is known.
func (x *spaces) lastUsed(ns ident.Namespace, function ident.FunctionName, name string) time.Time {
	x.mu.RLock()
	sp := x.byName[ns]
	x.mu.RUnlock()
	if sp == nil {
		return time.Time{}
	}
	return sp.uses.Last(function, name)
}
