package broker

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/perigee-iot/perigee/internal/topic"
)

// User is one who may connect with a name and a password.
type User struct {
	// PasswordFile holds the password in its first line. It is read once, by New.
	PasswordFile string
	// Publish and Subscribe are MQTT filters of what the user may do; an empty list allows nothing.
	Publish   []string
	Subscribe []string
}

// user is one known user. Only a salted hash of the password is kept.
type user struct {
	name      string
	salt      [16]byte
	hash      [sha256.Size]byte
	publish   []string
	subscribe []string
}

func (u *user) hashOf(password []byte) [sha256.Size]byte {
	return sha256.Sum256(append(u.salt[:], password...))
}

// users are all of them by name. nobody stands in for an unknown name, so that both take the same time.
type users struct {
	byName map[string]*user
	nobody *user
}

func loadUsers(conf map[string]User, log *slog.Logger) (users, error) {
	us := users{byName: make(map[string]*user, len(conf)), nobody: &user{}}
	for name, c := range conf {
		if name == "" {
			return us, errors.New("broker.users: a user needs a name")
		}
		u := &user{name: name, publish: c.Publish, subscribe: c.Subscribe}
		for what, list := range map[string][]string{"publish": c.Publish, "subscribe": c.Subscribe} {
			for _, f := range list {
				if err := topic.CheckFilter(f); err != nil {
					return us, fmt.Errorf("broker.users.%s.%s: %q: %w", name, what, f, err)
				}
			}
		}
		password, err := readPassword(c.PasswordFile, name, log)
		if err != nil {
			return us, fmt.Errorf("broker.users.%s: %w", name, err)
		}
		if _, err := rand.Read(u.salt[:]); err != nil {
			return us, fmt.Errorf("broker.users.%s: %w", name, err)
		}
		u.hash = u.hashOf(password)
		us.byName[name] = u
	}
	return us, nil
}

func readPassword(file, name string, log *slog.Logger) ([]byte, error) {
	if file == "" {
		return nil, errors.New("a user needs a password_file")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("password_file: %w", err)
	}
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o007 != 0 {
		log.Warn("broker: everybody on this machine can read a password file: chmod o= it", "user", name, "file", file)
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return nil, fmt.Errorf("password_file %s: its first line is empty", file)
	}
	return line, nil
}

// check returns the user, or nil if name or password are wrong.
func (us users) check(name, password []byte) *user {
	u, known := us.byName[string(name)]
	if !known {
		u = us.nobody
	}
	sum := u.hashOf(password)
	if subtle.ConstantTimeCompare(sum[:], u.hash[:]) != 1 || !known {
		return nil
	}
	return u
}

// mayPublish says whether u (nil: a client without a user, where there are none) may publish to a topic.
func (b *Broker) mayPublish(u *user, name string) bool {
	if u != nil {
		return matchAny(u.publish, name)
	}
	return len(b.users.byName) == 0 && !matchAny([]string{b.opts.Prefix + "/#"}, name)
}

// mayRead says whether u may subscribe to a filter or be sent a message. A client without a user may subscribe
// to "#": what is under the prefix is left out when messages are delivered.
func (b *Broker) mayRead(u *user, filter string) bool {
	if u != nil {
		return covered(u.subscribe, filter)
	}
	return len(b.users.byName) == 0 && !covered([]string{b.opts.Prefix + "/#"}, filter)
}

func userName(u *user) string {
	if u == nil {
		return ""
	}
	return u.name
}

// denied counts and logs what an access list forbids, with the line that is missing.
func (b *Broker) denied(u *user, client, what, name string) {
	if u == nil {
		b.refuse(refusedACL, "", "topics under the gateway's prefix need a user", "client", client, what, name, "prefix", b.opts.Prefix)
		return
	}
	b.refuse(refusedACL, u.name, "not allowed", "user", u.name, "client", client, what, name,
		"hint", fmt.Sprintf("add it to the configuration: broker.users.%s.%s: [%q]", u.name, what, name))
}
