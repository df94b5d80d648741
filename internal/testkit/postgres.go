package testkit

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Postgres is a PostgreSQL server of a test: of its own, in a folder of its own, on a port of the loopback interface.
type Postgres struct {
	// Port is where it listens, on 127.0.0.1.
	Port int
	// CA is the PEM certificate of the CA that its certificate for "localhost" comes from.
	CA   []byte
	dir  string
	cmd  *exec.Cmd
	done chan error
}

// PostgresPassword is the password of the user "postgres" of such a server.
const PostgresPassword = "test-of-" + "sallyport"

// postgresUser is whom the server runs as when tests run as root, which it refuses to: the user and the group nobody.
const postgresUser = 65534

// postgresStart bounds the start of a server: it only keeps a test from hanging.
const postgresStart = 2 * time.Minute

// StartPostgres starts a server. Settings are lines of its configuration. The caller ends it with Close.
func StartPostgres(settings ...string) (*Postgres, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sallyport-postgres-")
	if err != nil {
		return nil, err
	}
	p := &Postgres{dir: dir}
	if err := p.start(bin, settings); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

// postgresBin returns the folder of the server's programs.
func postgresBin() (string, error) {
	folders, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	slices.Sort(folders)
	if found, err := exec.LookPath("initdb"); err == nil {
		if found, err = filepath.EvalSymlinks(found); err == nil {
			folders = append(folders, filepath.Dir(found))
		}
	}
	if len(folders) == 0 {
		return "", errors.New("there is no PostgreSQL server on this machine; `make postgres` installs one (Debian package postgresql)")
	}
	return folders[len(folders)-1], nil
}

func (p *Postgres) start(bin string, settings []string) error {
	data := filepath.Join(p.dir, "data")
	if err := p.files(data); err != nil {
		return err
	}
	initdb := p.command(filepath.Join(bin, "initdb"), "--pgdata", data, "--username", "postgres", "--auth", "scram-sha-256",
		"--pwfile", filepath.Join(p.dir, "password"), "--no-sync", "--no-instructions", "--encoding", "UTF8", "--locale", "C")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	p.Port = port
	lines := append([]string{
		"listen_addresses = '127.0.0.1'", "port = " + strconv.Itoa(port), "unix_socket_directories = ''", "max_connections = 50", "shared_buffers = 32MB",
		"ssl = on", "ssl_cert_file = '" + filepath.Join(p.dir, "cert.pem") + "'", "ssl_key_file = '" + filepath.Join(p.dir, "key.pem") + "'",
	}, settings...)
	conf := filepath.Join(data, "postgresql.auto.conf")
	if err := os.WriteFile(conf, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	if err := p.own(conf); err != nil {
		return err
	}
	return p.run(p.command(filepath.Join(bin, "postgres"), "-D", data))
}

// files makes the certificate and the password, which the server's user must be able to read and nobody else.
func (p *Postgres) files(data string) error {
	cert, key, err := selfSigned()
	if err != nil {
		return err
	}
	p.CA = cert
	for name, content := range map[string][]byte{"cert.pem": cert, "key.pem": key, "password": []byte(PostgresPassword)} {
		file := filepath.Join(p.dir, name)
		if err := errors.Join(os.WriteFile(file, content, 0o600), p.own(file)); err != nil {
			return err
		}
	}
	return errors.Join(os.Mkdir(data, 0o700), p.own(data), p.own(p.dir))
}

// selfSigned makes a certificate for localhost that is its own CA.
func selfSigned() (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), nil
}

func (p *Postgres) own(path string) error {
	if os.Getuid() != 0 {
		return nil
	}
	return os.Chown(path, postgresUser, postgresUser)
}

func (p *Postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = p.dir
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH"), "HOME=" + p.dir}
	cmd.SysProcAttr = endsWithParent()
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: postgresUser, Gid: postgresUser}
	}
	return cmd
}

// run starts the server and waits until it says that it is ready. The server ends with the thread that started it, so that has
// nothing else to do: it ends with the test, however that does.
func (p *Postgres) run(cmd *exec.Cmd) error {
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	p.cmd, p.done = cmd, make(chan error, 1)
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		var said strings.Builder
		lines := bufio.NewScanner(stderr)
		ready := false
		for !ready && lines.Scan() {
			said.WriteString(lines.Text() + "\n")
			ready = strings.Contains(lines.Text(), "ready to accept connections")
		}
		if ready {
			started <- nil
			_, _ = io.Copy(io.Discard, stderr) // it logs on; nobody reads it
		} else {
			started <- fmt.Errorf("postgres ended: %s", said.String())
		}
		p.done <- cmd.Wait()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), postgresStart)
	defer cancel()
	select {
	case err := <-started:
		return err
	case <-ctx.Done():
		return errors.Join(errors.New("postgres does not start"), cmd.Process.Kill())
	}
}

// Close ends the server and removes its folder.
func (p *Postgres) Close() error {
	err := p.cmd.Process.Signal(syscall.SIGQUIT)
	<-p.done // that it was ended by a signal is what is wanted
	return errors.Join(err, os.RemoveAll(p.dir))
}

// Address returns the address of a database as a grant takes it; over TLS the host is localhost, which the certificate names.
func (p *Postgres) Address(database string, overTLS bool) string {
	if overTLS {
		return fmt.Sprintf("postgres://postgres:%s@localhost:%d/%s", PostgresPassword, p.Port, database)
	}
	return fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%d/%s?sslmode=disable", PostgresPassword, p.Port, database)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}
