package zkcoord

import (
	"errors"
	"net"
	"time"

	"github.com/rs/zerolog"
)

// The outcomes that callers tell apart with errors.Is. Errors returned by a Session wrap one of these, or say what else is wrong.
var (
	// ErrNoNode: the znode, or the parent of a znode to create, does not exist.
	ErrNoNode = errors.New("znode does not exist")
	// ErrNodeExists: the znode to create is there already.
	ErrNodeExists = errors.New("znode exists")
	// ErrBadVersion: the data version is not the expected one; nothing was written.
	ErrBadVersion = errors.New("znode has another version")
	// ErrNotEmpty: the znode to delete has children.
	ErrNotEmpty = errors.New("znode has children")
	// ErrSessionLost: the session of this handle is over. A write that was under way may or may not have been applied.
	ErrSessionLost = errors.New("zookeeper session is over")
	// ErrConnectionLost: the connection went while a write was under way: it may or may not have been applied. Re-read, compare.
	ErrConnectionLost = errors.New("zookeeper connection lost, outcome unknown")
	// ErrInvalid: the request itself cannot be carried out (path, size, children below an ephemeral znode), or a payload is unreadable.
	ErrInvalid = errors.New("invalid")
	// ErrNoAuth: the session may not do this.
	ErrNoAuth = errors.New("not authorised")
	// ErrSkipped: this operation of a multi was sound, but another one failed, so nothing was done.
	ErrSkipped = errors.New("not done: another operation of the multi failed")
)

// AnyVersion in a conditional write accepts every data version.
const AnyVersion = -1

// Mode says how long a znode lives and whether its name is numbered.
type Mode int

// The modes that Kafka uses.
const (
	Persistent           Mode = iota
	Ephemeral                 // goes with the session
	PersistentSequential      // ten decimal digits are appended to the name
)

// Stat is what ZooKeeper tells about a znode.
type Stat struct {
	Czxid          int64 // transaction that created it
	Mzxid          int64 // transaction that last set its data
	Ctime          int64 // server's clock when it was created, ms since 1970
	Version        int32 // number of times the data was set
	Cversion       int32 // number of changes to its children
	EphemeralOwner int64 // session id of the owner; 0 for a persistent znode
	NumChildren    int32
}

// OpKind is the kind of one operation of a Multi.
type OpKind int

// The operations of a Multi.
const (
	OpCheck OpKind = iota
	OpCreate
	OpSet
	OpDelete
)

// Op is one operation of a Multi; the constructors below make them.
type Op struct {
	Kind    OpKind
	Path    string
	Data    []byte
	Version int32
	Mode    Mode
}

// CheckOp holds only if the znode exists with this data version.
func CheckOp(path string, version int32) Op {
	return Op{Kind: OpCheck, Path: path, Version: version}
}

// CreateOp creates a znode; nil data is ZooKeeper's null.
func CreateOp(path string, data []byte, mode Mode) Op {
	return Op{Kind: OpCreate, Path: path, Data: data, Mode: mode}
}

// SetOp sets the data if the version matches.
func SetOp(path string, data []byte, version int32) Op {
	return Op{Kind: OpSet, Path: path, Data: data, Version: version}
}

// DeleteOp deletes a childless znode if the version matches.
func DeleteOp(path string, version int32) Op {
	return Op{Kind: OpDelete, Path: path, Version: version}
}

// OpResult is the outcome of one operation of a Multi. In a failed Multi, Err is the cause at the operation that failed, and
// ErrSkipped at all others.
type OpResult struct {
	Stat Stat   // of OpSet
	Path string // of OpCreate: the path as created
	Err  error
}

// MultiResult is the outcome of one Multi of a MultiMany.
type MultiResult struct {
	Results []OpResult
	Err     error
}

// GetResult is the outcome of one path of a GetMany.
type GetResult struct {
	Data []byte
	Stat Stat
	Err  error
}

// Session is one ZooKeeper session. Every operation belongs to it: when the session is over, operations fail with ErrSessionLost
// and never run in the next one.
//
// Paths are relative to the chroot. Reads are repeated over connection loss, and wait while there is no connection, until the
// session is over. Writes that were never sent wait likewise; writes that were sent and whose answer was lost report
// ErrConnectionLost. Methods may be called from any goroutine; concurrent calls have no order among each other.
type Session interface {
	ID() int64
	Done() <-chan struct{} // closed when the session is over

	Get(path string) ([]byte, Stat, error)
	Exists(path string) (bool, Stat, error)
	Children(path string) ([]string, Stat, error)
	// GetMany reads many znodes, in few round trips; results are in the order of the paths. It is no snapshot.
	GetMany(paths []string) []GetResult

	Create(path string, data []byte, mode Mode) (string, error)
	// CreateAll creates a persistent znode and, with null data, its missing parents. ErrNodeExists is returned.
	CreateAll(path string, data []byte) error
	Set(path string, data []byte, version int32) (Stat, error)
	Delete(path string, version int32) error
	// Multi does all operations or none. On failure the error is that of the first operation that failed.
	Multi(ops ...Op) ([]OpResult, error)
	// MultiMany does independent multis, pipelined, in no particular order; results are in the order of the multis.
	MultiMany(multis [][]Op) []MultiResult

	// WatchData calls fn after the znode was created, set or deleted, until cancelled or the session is over.
	// fn runs on the session's watcher goroutine and must not block; one call may stand for many changes, and for none.
	// The watch is armed when WatchData returns, and re-armed before fn is called: re-read, then compare with what was known.
	WatchData(path string, fn func()) (cancel func(), err error)
	// WatchChildren does the same for the set of children of an existing znode (ErrNoNode).
	WatchChildren(path string, fn func()) (cancel func(), err error)
}

// Listener hears of session changes, from one goroutine, in order.
type Listener interface {
	// SessionLost: the session is over and its operations already fail. Whatever belonged to it must have stopped when this
	// returns: only then the next session is opened. Must not use ZooKeeper.
	SessionLost(id int64, cause error)
	// SessionEstablished: a new session, nothing is registered in it yet. May use it.
	SessionEstablished(s Session)
	// ConnectionChanged: the session's connection is up or down; the session itself may well live on.
	ConnectionChanged(connected bool)
}

// Options of a Client. Connect, SessionTimeout are required.
type Options struct {
	Connect           string                   // zookeeper.connect: host:port,… with an optional chroot at the end
	SessionTimeout    time.Duration            // zookeeper.session.timeout.ms; the ensemble may change it
	ConnectionTimeout time.Duration            // zookeeper.connection.timeout.ms: bound for the first session; 0 = SessionTimeout
	MaxInFlight       int                      // zookeeper.max.in.flight.requests: width of the pipeline; 0 = 64
	TickTime          time.Duration            // the ensemble's tickTime; 0 = 2 s. Used for the lease
	SyncLimit         int                      // the ensemble's syncLimit in ticks; 0 = 5. Used for the lease
	MaxRequestBytes   int                      // the ensemble's jute.maxbuffer; 0 = 1048575
	BootTime          func() time.Duration     // clock of the lease, for tests; nil = CLOCK_BOOTTIME
	Observe           func(took time.Duration) // hears of every answered request, from many goroutines; nil = nobody
	Logger            zerolog.Logger
	Listener          Listener                                                               // may be nil
	Dial              func(network, address string, timeout time.Duration) (net.Conn, error) // nil = plain TCP; TLS goes here
	Digest            string                                                                 // USER:PASSWORD to show by the digest scheme; "" = none
	Protect           bool                                                                   // zookeeper.set.acl: only who shows the same identity may change what is created
}
