// An OPC UA server of another make: node node_opcua.js PORT [--name value]...
//
// It tells on its output, a JSON object a line, when it is ready and exactly what it wrote, and takes
// commands on its input, a line each:
//
//   write ROUNDS INTERVAL_MS   every tag gets the next number in each round; "done" follows
//   stop                       end the rounds; "done" follows
//   sessions                   how many sessions there are
//   subscriptions              how many subscriptions there are
//   items                      how many monitored items there are, and their greatest client handle
//   remove NAME                delete a tag's node; "removed" follows
//   add NAME                   make a tag's node, with the value -1; "added" follows
//   drop                       end all subscriptions, as an administrator would
//   requests                   how often each service was asked, how often each refusal was answered, and the acknowledgements with their time
//   trust                      trust every client certificate that was rejected
//   bad NAME STATUS            write a bad status, without a value
//   lose N                     the next N answers to PublishRequests that carry values never leave
//   forget yes|no              whether messages that were sent are forgotten at once (no Republish)
//   mute yes|no                whether subscriptions stop sending anything at all
//   hush yes|no                whether the subscription that was made last stops sending anything at all
//   deny yes|no                whether every PublishRequest is refused at once
//   hollow yes|no              whether subscriptions send keep-alives and no values
//   forbid yes|no              whether no session may be taken up again, nor its subscriptions moved
//   level N                    ServiceLevel
//   event SEVERITY TEXT        the server raises an event; "raised" follows
//   overflow                   the server says that a queue of events overflowed; "raised" follows
//   heat VALUE                 sets Space/Temperature, which has an alarm above 80
//
// Options: --tags N, --pki DIR, --security none|both|secure|sign, --user NAME:PASSWORD, --anonymous no,
// --refuse subscriptions|browse, --max-sessions N, --max-subscribed N, --per-subscription N, --max-subscriptions N,
// --publish-queue N, --transfer yes, --per-call N, --accept yes, --types yes, --history N (of the first N tags), --level N,
// --space yes (units, ranges, enumerations, structures, an alarm), --namespace URI (of the tags), --before URI,URI (namespaces before it), --manufacturer NAME, --product NAME,
// --advertised URL (it is reached there as well), --session-endpoints none|elsewhere (what CreateSession tells: no endpoints, or other hosts and ports),
// --certificate FILE --key FILE --uri URI (PEM, perhaps a chain), --users-by-certificate yes, --clock-ahead SECONDS

const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const readline = require("node:readline");
const opcua = require("node-opcua");

const { DataType, MessageSecurityMode, SecurityPolicy, StatusCodes, Variant, VariantArrayType } = opcua;

const port = Number(process.argv[2]);
const options = {};
for (let i = 3; i < process.argv.length; i += 2) options[process.argv[i].slice(2)] = process.argv[i + 1];

const ahead_ms = 1000 * Number(options["clock-ahead"] || 0);
if (ahead_ms) {
  const Real = Date;
  globalThis.Date = class extends Real {
    constructor(...given) {
      given.length ? super(...given) : super(Real.now() + ahead_ms);
    }
    static now() {
      return Real.now() + ahead_ms;
    }
  };
}

const say = (told) => process.stdout.write(JSON.stringify(told) + "\n");
const pki = options.pki || fs.mkdtempSync(path.join(os.tmpdir(), "node-opcua-pki-"));
const security = options.security || "none";
const SECURE = [SecurityPolicy.Basic256Sha256, SecurityPolicy.Aes128_Sha256_RsaOaep, SecurityPolicy.Aes256_Sha256_RsaPss];
const policies = { none: [SecurityPolicy.None], both: [SecurityPolicy.None, ...SECURE], secure: SECURE, sign: SECURE }[security];
const modes = {
  none: [MessageSecurityMode.None],
  both: [MessageSecurityMode.None, MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt],
  secure: [MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt],
  sign: [MessageSecurityMode.Sign],
}[security];
const [user, password] = (options.user || ":").split(":");

const requests = {};
const faults = { lose: 0, forget: false, mute: false, hush: false, deny: false, hollow: false, forbid: false, level: Number(options.level || 255) };
const acks = [];
const tags = [];
let line;
let newest = 0;
let heat = () => undefined;
let number = 0;
let writing = true;

// Faults of a server and of what lies between.
function sabotage() {
  if (options["publish-queue"]) opcua.ServerSession.maxPublishRequestInQueue = Number(options["publish-queue"]);
  const layer = opcua.ServerSecureChannelLayer.prototype;
  const send = layer.send_response;
  layer.send_response = function (kind, response, ...rest) {
    const refused = response.responseHeader.serviceResult.name;
    if (refused !== "Good") requests[refused] = (requests[refused] || 0) + 1;
    if (response instanceof opcua.CreateSessionResponse) {
      if (options["session-endpoints"] === "none") response.serverEndpoints = [];
      if (options["session-endpoints"] === "elsewhere") {
        for (const each of response.serverEndpoints) each.endpointUrl = "opc.tcp://plc-07.plant.example:14840/UA";
      }
    }
    if (response instanceof opcua.CreateSubscriptionResponse) newest = response.subscriptionId;
    if (response instanceof opcua.PublishResponse) {
      if (faults.mute || (faults.hush && response.subscriptionId === newest)) return undefined;
      if (faults.hollow) response.notificationMessage.notificationData = [];
      if (faults.lose && (response.notificationMessage.notificationData || []).length) {
        faults.lose -= 1;
        return undefined;
      }
    }
    return send.call(this, kind, response, ...rest);
  };
}

async function main() {
  sabotage();
  const certificates = new opcua.OPCUACertificateManager({
    rootFolder: pki,
    automaticallyAcceptUnknownCertificate: options.accept === "yes",
  });
  await certificates.initialize();
  const users = new opcua.OPCUACertificateManager({
    rootFolder: path.join(pki, "users"),
    automaticallyAcceptUnknownCertificate: options["users-by-certificate"] === "yes",
  });
  await users.initialize();
  const limit = Number(options["per-call"] || 0);
  const server = new opcua.OPCUAServer({
    port,
    host: "127.0.0.1",
    alternateHostname: "127.0.0.1",
    ...(options.advertised ? { advertisedEndpoints: options.advertised } : {}),
    resourcePath: "/node",
    ...(options.space === "yes"
      ? { nodeset_filename: [opcua.nodesets.standard, path.join(__dirname, "types.xml")] }
      : {}),
    securityPolicies: policies,
    securityModes: modes,
    allowAnonymous: options.anonymous !== "no",
    userManager: { isValidUser: (name, word) => Boolean(user) && name === user && word === password },
    serverCertificateManager: certificates,
    userCertificateManager: users,
    ...(options.certificate 
      ? { certificateFile: options.certificate, privateKeyFile: options.key, serverInfo: { applicationUri: options.uri } }
      : {}),
    serverCapabilities: {
      minSupportedSampleRate: 0, // every change is seen where a sampling interval of 0 is asked for
      maxSessions: Number(options["max-sessions"] || 10),
      maxMonitoredItems: Number(options["max-subscribed"] || 100000),
      maxMonitoredItemsPerSubscription: Number(options["per-subscription"] || options["max-subscribed"] || 100000),
      maxSubscriptionsPerSession: Number(options["max-subscriptions"] || 10),
      operationLimits: limit
        ? { maxNodesPerRead: limit, maxNodesPerBrowse: limit, maxMonitoredItemsPerCall: limit, maxNodesPerTranslateBrowsePathsToNodeIds: limit }
        : {},
    },
    buildInfo: { manufacturerName: options.manufacturer || "Tests", productName: options.product || "node-opcua" },
  });
  await server.initialize();
  server.engine.allowAnonymousSubscriptionTransferOnUnsecuredChannel = options.transfer === "yes";
  populate(server);
  if (options.refuse === "subscriptions") {
    server._on_CreateSubscriptionRequest = function (message, channel) {
      this._apply_on_SessionObject(opcua.CreateSubscriptionResponse, message, channel, (_session, _send, sendError) =>
        sendError(StatusCodes.BadServiceUnsupported),
      );
    };
  }
  if (options.refuse === "browse") {
    server._on_BrowseRequest = (message, channel) =>
      channel.send_response("MSG", new opcua.ServiceFault({ responseHeader: { serviceResult: StatusCodes.BadServiceUnsupported } }), message);
  }
  forbid(server);
  server.on("request", (request) => {
    const kind = request.constructor.name;
    requests[kind] = (requests[kind] || 0) + 1;
    for (const ack of request.subscriptionAcknowledgements || []) acks.push([ack.sequenceNumber, Date.now()]);
  });
  await server.start();
  say({ event: "ready", url: `opc.tcp://127.0.0.1:${port}/node`, pki });
  readline.createInterface({ input: process.stdin }).on("line", (line) => command(server, line.trim().split(/\s+/)));
  process.on("SIGTERM", () => process.exit(0));
  process.stdin.on("end", () => process.exit(0)); // whoever started it is gone
}

function populate(server) {
  const space = server.engine.addressSpace;
  for (const uri of options.before ? options.before.split(",") : []) space.registerNamespace(uri);
  const own = options.namespace ? space.registerNamespace(options.namespace) : space.getOwnNamespace();
  space.findNode("i=2267").bindVariable({ get: () => new Variant({ dataType: DataType.Byte, value: faults.level }) }, true);
  line = own.addObject({ organizedBy: space.rootFolder.objects, browseName: "Line1", nodeId: "s=Line1" });
  for (let n = 0; n < Number(options.tags || 5); n++) {
    const variable = addTag(own, `Tag${n}`);
    if (n < Number(options.history || 0)) space.installHistoricalDataNode(variable, { maxOnlineValues: 1000000 });
    write(variable, n);
  }
  if (options.types === "yes") populateTypes(space, own);
  if (options.space === "yes") populateSpace(space, own);
}

function addTag(own, name) {
  const variable = own.addVariable({
    componentOf: line,
    browseName: name,
    nodeId: `s=Line1.${name}`,
    dataType: DataType.Double,
    minimumSamplingInterval: 0,
  });
  tags.push(variable);
  return variable;
}

function forbid(server) {
  const republish = server._on_RepublishRequest;
  server._on_RepublishRequest = function (message, channel) {
    if (!faults.forget) return republish.call(this, message, channel);
    const gone = { responseHeader: { serviceResult: StatusCodes.BadMessageNotAvailable } };
    return channel.send_response("MSG", new opcua.RepublishResponse(gone), message);
  };
  const publish = server._on_PublishRequest;
  server._on_PublishRequest = function (message, channel) {
    if (!faults.deny) return publish.call(this, message, channel);
    const refused = { responseHeader: { serviceResult: StatusCodes.BadTooManyPublishRequests } };
    return channel.send_response("MSG", new opcua.ServiceFault(refused), message);
  };
  const activate = server._on_ActivateSessionRequest;
  server._on_ActivateSessionRequest = function (message, channel) {
    const session = this.getSession(message.request.requestHeader.authenticationToken);
    if (faults.forbid && session && session.status === "active") {
      const refused = { responseHeader: { serviceResult: StatusCodes.BadSessionIdInvalid } };
      return channel.send_response("MSG", new opcua.ActivateSessionResponse(refused), message);
    }
    return activate.call(this, message, channel);
  };
}

function populateTypes(space, own) {
  const folder = own.addObject({ organizedBy: space.rootFolder.objects, browseName: "Types", nodeId: "s=Types" });
  const values = {
    Boolean: true,
    SByte: -128,
    Byte: 255,
    Int16: -32768,
    UInt16: 65535,
    Int32: -2147483648,
    UInt32: 4294967295,
    Int64: [0x80000000, 0],
    UInt64: [0xffffffff, 0xffffffff],
    Float: 1.5,
    Double: -0.1,
    String: "Größe\u0000\u{1F527}",
    DateTime: new Date("2001-02-03T04:05:06.789Z"),
    Guid: "72962B91-FA75-4AE6-8D28-B404DC7DAF63",
    ByteString: Buffer.from([0, 1, 255]),
    XmlElement: "<a>1</a>",
    NodeId: opcua.resolveNodeId("ns=1;s=Line1"),
    StatusCode: StatusCodes.BadNodeIdUnknown,
    QualifiedName: { namespaceIndex: 1, name: "Q" },
    LocalizedText: { locale: "de", text: "Wärme" },
  };
  for (const [name, value] of Object.entries(values)) {
    const dataType = DataType[name];
    const variable = own.addVariable({ componentOf: folder, browseName: name, nodeId: `s=Types.${name}`, dataType });
    const variant = new Variant({ dataType, arrayType: VariantArrayType.Scalar, value });
    variable.setValueFromSource(variant, StatusCodes.Good, new Date());
  }
  const add = (name, dataType, variant, extra) =>
    own
      .addVariable({ componentOf: folder, browseName: name, nodeId: `s=Types.${name}`, dataType, ...extra })
      .setValueFromSource(variant, StatusCodes.Good, new Date());
  add("Array", DataType.Int32, new Variant({ dataType: DataType.Int32, arrayType: VariantArrayType.Array, value: [1, 2, 3] }), { valueRank: 1 });
  add(
    "Matrix",
    DataType.Double,
    new Variant({ dataType: DataType.Double, arrayType: VariantArrayType.Matrix, dimensions: [2, 3], value: [1, 2, 3, 4, 5, 6] }),
    { valueRank: 2, arrayDimensions: [2, 3] },
  );
  add(
    "Range",
    "Range",
    new Variant({ dataType: DataType.ExtensionObject, value: new opcua.Range({ low: 1, high: 2 }) }),
    {},
  );
  const special = { NaN: NaN, Infinity: Infinity, NegativeZero: -0 };
  for (const [name, value] of Object.entries(special)) add(name, DataType.Double, new Variant({ dataType: DataType.Double, value }), {});
}

function populateSpace(space, own) {
  const folder = own.addObject({ organizedBy: space.rootFolder.objects, browseName: "Space", nodeId: "s=Space" });
  space.installAlarmsAndConditionsService();
  const temperature = own.addAnalogDataItem({
    componentOf: folder,
    browseName: "Temperature",
    nodeId: "s=Space.Temperature",
    dataType: "Double",
    engineeringUnitsRange: { low: -10, high: 90 },
    instrumentRange: { low: -50, high: 150 },
    engineeringUnits: opcua.standardUnits.degree_celsius,
    value: new Variant({ dataType: DataType.Double, value: 21.5 }),
  });
  folder.setEventNotifier(1);
  folder.addReference({ referenceType: "HasEventSource", nodeId: temperature.nodeId });
  space.rootFolder.objects.server.addReference({ referenceType: "HasNotifier", nodeId: folder.nodeId });
  own.instantiateNonExclusiveLimitAlarm("NonExclusiveLimitAlarmType", {
    browseName: "TooHot",
    conditionName: "TooHot",
    componentOf: folder,
    conditionSource: temperature,
    inputNode: temperature,
    highLimit: 80,
    lowLimit: -5,
    lowLowLimit: -9,
    highHighLimit: 89,
  });
  heat = (value) => temperature.setValueFromSource(new Variant({ dataType: DataType.Double, value }), StatusCodes.Good, new Date());
  own.addMultiStateDiscrete({ componentOf: folder, browseName: "Switch", nodeId: "s=Space.Switch", enumStrings: ["Off", "On"], value: 1 });
  own.addTwoStateDiscrete({ componentOf: folder, browseName: "Door", nodeId: "s=Space.Door", falseState: "closed", trueState: "open", value: true });
  const types = space.getNamespaceIndex("urn:edge-gateway:types");
  const mode = space.findDataType("Mode", types);
  own
    .addVariable({ componentOf: folder, browseName: "Mode", nodeId: "s=Space.Mode", dataType: mode })
    .setValueFromSource(new Variant({ dataType: DataType.Int32, value: 7 }), StatusCodes.Good, new Date());
  const made = (type, value) => space.constructExtensionObject(space.findDataType(type, types), value);
  const add = (name, type, value, arrayType) =>
    own
      .addVariable({ componentOf: folder, browseName: name, nodeId: `s=Space.${name}`, dataType: space.findDataType(type, types), valueRank: arrayType ? 1 : -1 })
      .setValueFromSource(new Variant({ dataType: DataType.ExtensionObject, arrayType: arrayType || VariantArrayType.Scalar, value }), StatusCodes.Good, new Date());
  add("Point", "Point", made("Point", { x: 1.5, y: -2 }));
  add("Points", "Point", [made("Point", { x: 1, y: 2 }), made("Point", { x: NaN, y: 4 })], VariantArrayType.Array);
  add(
    "Path",
    "Path",
    made("Path", {
      name: "P\u00e4th",
      mode: 7,
      points: [{ x: 1, y: 2 }, { x: 3, y: 4 }],
      counts: [[0, 1], [0x7fffffff, 0xffffffff]],
      duration: 12.5,
      at: new Date("2001-02-03T04:05:06.789Z"),
      id: "72962B91-FA75-4AE6-8D28-B404DC7DAF63",
      raw: Buffer.from([0, 1, 255]),
      title: { locale: "de", text: "W\u00e4rme" },
      any: new Variant({ dataType: DataType.Int16, value: -3 }),
      node: opcua.resolveNodeId("ns=1;s=Line1"),
      good: true,
    }),
  );
  add("Maybe", "Maybe", made("Maybe", { always: 1, second: { x: 5, y: 6 } }));
  add("Either", "Either", made("Either", { point: { x: 7, y: 8 } }));
}

function write(variable, value) {
  const moment = new Date();
  // The ledger comes first: what a client got is then always in it.
  say({ tag: variable.browseName.name, ts: moment.getTime() * 1000, value });
  variable.setValueFromSource(new Variant({ dataType: DataType.Double, value }), StatusCodes.Good, moment);
}

function rounds(left, interval) {
  if (!left || !writing) return say({ event: "done" });
  number += 1;
  tags.forEach((variable, place) => write(variable, number * 1000 + place));
  return setTimeout(() => rounds(left - 1, interval), interval);
}

function subscriptions(server) {
  return Object.values(server.engine._sessions).flatMap((session) => session.publishEngine.subscriptions);
}

async function trust(certificates) {
  const rejected = path.join(pki, "rejected");
  while (!fs.readdirSync(rejected).length) await new Promise((resolve) => setTimeout(resolve, 20));
  for (const file of fs.readdirSync(rejected)) {
    await certificates.trustCertificate(require("node-opcua-crypto").readCertificate(path.join(rejected, file)));
  }
  say({ event: "trusted" });
}

function command(server, [verb, ...words]) {
  if (verb === "write") {
    writing = true;
    rounds(Number(words[0]), Number(words[1]));
  }
  if (verb === "stop") writing = false;
  if (verb === "sessions") {
    const names = Object.values(server.engine._sessions).map((session) => session.sessionName);
    say({ event: "sessions", count: server.engine.currentSessionCount, names });
  }
  if (verb === "subscriptions") say({ event: "subscriptions", count: subscriptions(server).length });
  if (verb === "items") {
    const items = subscriptions(server).flatMap((subscription) => [...subscription.monitoredItems.values()]);
    say({ event: "items", count: items.length, greatest: Math.max(...items.map((item) => item.clientHandle)) });
  }
  if (verb === "remove") {
    const place = tags.findIndex((one) => one.browseName.name === words[0]);
    server.engine.addressSpace.deleteNode(tags.splice(place, 1)[0]);
    say({ event: "removed" });
  }
  if (verb === "add") {
    write(addTag(line.namespace, words[0]), -1);
    say({ event: "added" });
  }
  if (verb === "drop") {
    for (const subscription of subscriptions(server)) subscription.terminate();
    say({ event: "dropped" });
  }
  if (verb === "requests") say({ event: "requests", counts: requests, acks });
  if (verb === "trust") trust(server.serverCertificateManager);
  if (verb === "lose" || verb === "level") faults[verb] = Number(words[0]);
  if (["forget", "mute", "hush", "deny", "hollow", "forbid"].includes(verb)) faults[verb] = words[0] === "yes";
  if (verb === "heat") heat(Number(words[0]));
  if (verb === "overflow") {
    server.engine.addressSpace.rootFolder.objects.server.raiseEvent("EventQueueOverflowEventType", {});
    say({ event: "raised" });
  }
  if (verb === "event") {
    const message = words.slice(1).join(" ");
    server.engine.addressSpace.rootFolder.objects.server.raiseEvent("SystemEventType", {
      message: { dataType: DataType.LocalizedText, value: { text: message } },
      severity: { dataType: DataType.UInt16, value: Number(words[0]) },
    });
    say({ event: "raised" });
  }
  if (verb === "bad") {
    const variable = tags.find((one) => one.browseName.name === words[0]);
    const moment = new Date();
    say({ tag: words[0], ts: moment.getTime() * 1000, value: null });
    variable.setValueFromSource(new Variant({ dataType: DataType.Null }), StatusCodes[words[1]], moment);
  }
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
