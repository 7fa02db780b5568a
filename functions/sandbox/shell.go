package sandbox

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/perigee-iot/perigee/functions/frame"
)

// nobody is the user and group of workers whose gateway is root: it owns nothing, and every machine and container has it.
const nobody = 65534

// shell is what the gateway puts around a worker when it starts it: layers of confinement that a process cannot put on itself. One that this
// machine does not allow shows at the first start, which is tried without it. It is used by the spawner alone.
type shell struct {
	layers []shellLayer
	proven bool // a process was started: what was on then stays on
}

type shellLayer struct {
	frame.Layer
	put func(*syscall.SysProcAttr) // nil: it is there without
}

// active says whether a process is started in the layer.
func (l *shellLayer) active() bool { return l.State == frame.On && l.put != nil }

// The names of the layers of a shell.
const (
	layerUser       = "user"
	layerNamespaces = "namespaces"
	layerDeath      = "dies_with_gateway"
)

// newShell knows what this gateway can do: a root can start processes of another user; for namespaces, others need a user namespace first.
// There is none of processes: the first one in it is special (it cannot even kill itself), and the other layers leave no way to another process.
func newShell(root bool) *shell {
	namespaces := uintptr(unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS)
	user := shellLayer{frame.Layer{Name: layerUser}, func(a *syscall.SysProcAttr) {
		a.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}}
	if !root {
		namespaces |= unix.CLONE_NEWUSER
		user.put, user.Why = nil, "the gateway's own, which is not root"
	}
	return &shell{layers: []shellLayer{user, {frame.Layer{Name: layerNamespaces}, func(a *syscall.SysProcAttr) { a.Cloneflags |= namespaces }}}}
}

// off takes a layer away from all processes to come.
func (s *shell) off(name string) {
	for i := range s.layers {
		if s.layers[i].Name == name {
			s.layers[i].State = frame.Off
		}
	}
}

// report is how the layers are.
func (s *shell) report() []frame.Layer {
	all := []frame.Layer{{Name: layerDeath}} // no process is started without it
	for _, l := range s.layers {
		if l.State != frame.Off { // whoever took it off says why
			all = append(all, l.Layer)
		}
	}
	return all
}

// last is the name of the last layer that is on, "" if none is.
func (s *shell) last() string {
	name := ""
	for _, l := range s.layers {
		if l.active() {
			name = l.Name
		}
	}
	return name
}

// start starts a process in the shell. Until one has been started, a layer without which it can be is given up.
func (s *shell) start(args []string, files []uintptr) (pid int, err error) {
	if pid, err = s.try(args, files, func(string) bool { return true }); err == nil || s.proven || !refused(err) {
		s.proven = s.proven || err == nil
		return pid, err
	}
	for i := len(s.layers); i >= 0; i-- { // without each alone, the last first, and at last without all
		without := func(name string) bool { return i > 0 && s.layers[i-1].Name != name }
		if i > 0 && !s.layers[i-1].active() {
			continue
		}
		pid, again := s.try(args, files, without)
		if again != nil {
			continue
		}
		for j := range s.layers {
			if l := &s.layers[j]; l.active() && !without(l.Name) {
				l.State, l.Why = frame.Unavailable, "the kernel does not allow it: "+err.Error()
			}
		}
		s.proven = true
		return pid, nil
	}
	return 0, err
}

// refused says whether a start failed for want of a right, and not of memory or of the program.
func refused(err error) bool {
	for _, e := range []error{unix.EPERM, unix.EACCES, unix.EINVAL, unix.ENOSYS, unix.ENOSPC, unix.EUSERS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// try starts a process in those layers that are on and wanted.
func (s *shell) try(args []string, files []uintptr, wanted func(string) bool) (int, error) {
	sys := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	for _, l := range s.layers {
		if l.active() && wanted(l.Name) {
			l.put(sys)
		}
	}
	pid, _, err := syscall.StartProcess(args[0], args, &syscall.ProcAttr{Dir: "/", Env: []string{}, Files: files, Sys: sys})
	if err != nil {
		return 0, os.NewSyscallError("exec", err)
	}
	return pid, nil
}
