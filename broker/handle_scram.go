package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/security"
	"ottla/zkcoord"
)

// DescribeUserScramCredentials v0, from any broker: which users have which credentials, never the credentials (KIP-554).
// AlterUserScramCredentials v0, from the controller only: the client has salted the password, the broker makes what is stored of it.
//   - All changes of a user happen or none.

// scramMechanisms are the mechanisms by their numbers on the wire.
var scramMechanisms = map[int8]string{1: security.ScramSHA256, 2: security.ScramSHA512}

func (b *Broker) handleDescribeScramCredentials(r *wire.Request, req *kmsg.DescribeUserSCRAMCredentialsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeUserSCRAMCredentialsResponse)
	if !b.allowed(r, opDescribe, clusterResource) {
		resp.ErrorCode, resp.ErrorMessage = b.codeAndMessage(kerr.ClusterAuthorizationFailed)
		return resp
	}
	b.tasks.run(func() {
		results, err := b.describeScram(req)
		resp.Results = results
		resp.ErrorCode, resp.ErrorMessage = b.codeAndMessage(err)
		r.Respond(resp)
	})
	return nil
}

func (b *Broker) describeScram(req *kmsg.DescribeUserSCRAMCredentialsRequest) ([]kmsg.DescribeUserSCRAMCredentialsResponseResult, error) {
	s := b.zk.Session()
	var names []string // as in paths
	asked := map[string]int{}
	for _, u := range req.Users {
		if asked[u.Name]++; asked[u.Name] == 1 {
			names = append(names, zkcoord.SanitizeEntity(u.Name))
		}
	}
	all := len(req.Users) == 0
	if all {
		var err error
		if names, err = zkcoord.EntityNames(s, zkcoord.EntityUsers); err != nil {
			return nil, err
		}
	}
	read, err := zkcoord.ReadConfigs(s, zkcoord.EntityUsers, names)
	if err != nil {
		return nil, err
	}
	var results []kmsg.DescribeUserSCRAMCredentialsResponseResult
	for _, name := range names {
		user, err := zkcoord.DesanitizeEntity(name)
		if err != nil {
			continue
		}
		out := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
		out.User, out.CredentialInfos = user, scramInfos(read[name])
		switch {
		case all && len(out.CredentialInfos) == 0:
			continue
		case asked[user] > 1:
			out.CredentialInfos = nil
			err = withMessage(kerr.DuplicateResource, "Cannot describe SCRAM credentials for the same user twice in a single request: "+user)
		case len(out.CredentialInfos) == 0:
			err = withMessage(kerr.ResourceNotFound, "Attempt to describe a user credential that does not exist: "+user)
		}
		out.ErrorCode, out.ErrorMessage = b.codeAndMessage(err)
		results = append(results, out)
	}
	return results, nil
}

func scramInfos(settings map[string]string) []kmsg.DescribeUserSCRAMCredentialsResponseResultCredentialInfo {
	var infos []kmsg.DescribeUserSCRAMCredentialsResponseResultCredentialInfo
	for number := int8(1); number <= 2; number++ {
		c, err := security.ParseScramCredential(settings[scramMechanisms[number]])
		if err != nil {
			continue
		}
		info := kmsg.NewDescribeUserSCRAMCredentialsResponseResultCredentialInfo()
		info.Mechanism, info.Iterations = number, int32(c.Iterations)
		infos = append(infos, info)
	}
	return infos
}

func (b *Broker) handleAlterScramCredentials(r *wire.Request, req *kmsg.AlterUserSCRAMCredentialsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.AlterUserSCRAMCredentialsResponse)
	refused := error(nil)
	switch {
	case !b.controller.Active():
		refused = kerr.NotController
	case !b.allowed(r, opAlter, clusterResource):
		refused = kerr.ClusterAuthorizationFailed
	}
	changes, users := scramChanges(req)
	b.tasks.run(func() {
		for _, user := range users {
			err := refused
			if err == nil {
				err = b.alterScram(user, changes[user])
			}
			out := kmsg.NewAlterUserSCRAMCredentialsResponseResult()
			out.User = user
			out.ErrorCode, out.ErrorMessage = b.codeAndMessage(err)
			resp.Results = append(resp.Results, out)
		}
		r.Respond(resp)
	})
	return nil
}

// scramChange is what shall become of one credential.
type scramChange struct {
	mechanism  int8
	remove     bool
	credential security.ScramCredential // its keys are made later, once all is valid
	salted     []byte
}

// scramChanges sorts a request by users, in the order of their first mention. Bytes are copied: frames do not live that long.
func scramChanges(req *kmsg.AlterUserSCRAMCredentialsRequest) (map[string][]scramChange, []string) {
	of := map[string][]scramChange{}
	var users []string
	add := func(user string, c scramChange) {
		if of[user] == nil {
			users = append(users, user)
		}
		of[user] = append(of[user], c)
	}
	for _, d := range req.Deletions {
		add(d.Name, scramChange{mechanism: d.Mechanism, remove: true})
	}
	for _, u := range req.Upsertions {
		c := scramChange{mechanism: u.Mechanism, salted: append([]byte(nil), u.SaltedPassword...)}
		c.credential.Salt, c.credential.Iterations = append([]byte(nil), u.Salt...), int(u.Iterations)
		add(u.Name, c)
	}
	return of, users
}

func (b *Broker) alterScram(user string, changes []scramChange) error {
	if err := checkScramChanges(user, changes); err != nil {
		return err
	}
	s, name := b.zk.Session(), zkcoord.SanitizeEntity(user)
	settings, err := zkcoord.ReadConfig(s, zkcoord.EntityUsers, name)
	if err != nil {
		return err
	}
	for _, c := range changes {
		mechanism := scramMechanisms[c.mechanism]
		if c.remove {
			if _, there := settings[mechanism]; !there {
				return withMessage(kerr.ResourceNotFound, "Attempt to delete a user credential that does not exist")
			}
			delete(settings, mechanism)
			continue
		}
		settings[mechanism] = security.SaltedScramCredential(mechanism, c.credential.Salt, c.salted, c.credential.Iterations).Format()
	}
	if err := zkcoord.WriteConfig(s, zkcoord.EntityUsers, name, settings); err != nil {
		return err
	}
	return b.readCredentials(s, []string{name})
}

func checkScramChanges(user string, changes []scramChange) error {
	if user == "" {
		return withMessage(kerr.UnacceptableCredential, "Username must not be empty")
	}
	seen := map[int8]bool{}
	for _, c := range changes {
		switch {
		case scramMechanisms[c.mechanism] == "":
			return withMessage(kerr.UnsupportedSaslMechanism, "Unknown SCRAM mechanism")
		case seen[c.mechanism]:
			return withMessage(kerr.DuplicateResource, "A user credential cannot be altered twice in the same request")
		case c.remove:
		case c.credential.Iterations < security.ScramIterationsMin:
			return withMessage(kerr.UnacceptableCredential, "Too few iterations")
		case c.credential.Iterations > security.ScramIterationsMax:
			return withMessage(kerr.UnacceptableCredential, "Too many iterations")
		case len(c.credential.Salt) == 0 || len(c.salted) == 0:
			return withMessage(kerr.UnacceptableCredential, "Salt and salted password must not be empty")
		}
		seen[c.mechanism] = true
	}
	return nil
}
