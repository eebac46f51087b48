"""What runs in the front end's page to draw a workflow, to look for hidden wires, and to show single nodes."""

from __future__ import annotations

# Loads the API form, sets sizes and adds the note; returns each node's size by its key. Nodes without a given size get
# the front end's.
LOAD = """
async ({prompt, name, nodes, note, noteSize}) => {
  await app.loadApiJson(prompt, name + '.json');
  const byKey = window.byKey = {};
  nodes.forEach(({key}, index) => { byKey[key] = app.graph.getNodeById(index + 1); });
  const text = LiteGraph.createNode('MarkdownNote');
  text.title = 'What this shows';
  app.graph.add(text);
  text.widgets[0].value = note;
  text.setSize(noteSize);
  byKey.note = text;
  for (const {key, size, collapsed, files} of nodes) {
    const node = byKey[key];
    node.setSize(size ?? [Math.max(node.computeSize()[0], 225), node.computeSize()[1]]);
    if (collapsed) node.flags.collapsed = true;
    if (files.length) node.properties.models = files;
    // The menu beside a seed, whatever the node calls it: each run shows the next seed, and one can go back.
    for (const widget of node.widgets ?? [])
      if (widget.options?.values?.includes?.('increment')) widget.value = 'fixed';
  }
  return Object.fromEntries(Object.entries(byKey).map(([key, node]) => [key, [...node.size]]));
}
"""

# Places and colours the nodes, draws groups around them, and returns the wires.
PLACE = """
async ({places, sizes, colours, groups}) => {
  const keys = new Map(Object.entries(byKey).map(([key, node]) => [node.id, key]));
  for (const [key, [x, y]] of Object.entries(places)) byKey[key].pos = [x, y];
  for (const [key, size] of Object.entries(sizes)) byKey[key].setSize(size);
  for (const [key, colour] of Object.entries(colours)) byKey[key].setColorOption(LGraphCanvas.node_colors[colour]);
  for (const [title, [left, top, right, bottom]] of Object.entries(groups)) {
    const group = new LiteGraph.LGraphGroup(title);
    group.pos = [left, top];
    group.size = [right - left, bottom - top];
    app.graph.add(group);
  }
  app.extensionManager.command.execute('Comfy.Canvas.FitView');
  app.canvas.ds.scale = 0.7; // below 0.6, widgets are not drawn
  app.canvas.ds.offset[0] = 40; app.canvas.ds.offset[1] = 160;
  app.canvas.draw(true, true);
  await new Promise(done => setTimeout(done, 400));
  app.canvas.draw(true, true);
  return [...app.graph.links.values()].map(link => ({
    id: link.id, source: keys.get(link.origin_id), target: keys.get(link.target_id),
    start: [...app.graph.getNodeById(link.origin_id).getOutputPos(link.origin_slot)],
    end: [...app.graph.getNodeById(link.target_id).getInputPos(link.target_slot)],
  }));
}
"""

# Adds reroutes; returns the file as text, as it is saved (values that are undefined are left out), and what the front
# end would send for it.
FINISH = """
async dots => {
  for (const [link, points] of Object.entries(dots))
    for (const point of points) app.graph.createReroute(point, app.graph.getLink(Number(link)));
  return JSON.stringify({graph: app.graph.serialize(), sent: (await app.graphToPrompt()).output});
}
"""

# Returns [node, wire's source, wire's target] for each wire that passes behind a node: one that crosses its edge a
# little within; in subgraphs, too. The paths are those that the front end has drawn.
HIDDEN = """
async () => {
  const canvas = app.canvas, view = canvas.ds;
  const pen = document.createElement('canvas').getContext('2d'), within = 14, title = LiteGraph.NODE_TITLE_HEIGHT;
  pen.lineWidth = 2;
  const found = new Set();
  for (const graph of [...app.graph.subgraphs.values(), app.graph]) {
    canvas.setGraph(graph);
    view.scale = 0.7;
    view.offset[0] = 40 + (graph.inputNode ? 200 : 0); view.offset[1] = 160;
    canvas.draw(true, true);
    await new Promise(done => setTimeout(done, 400));
    canvas.draw(true, true);
    for (const node of graph.nodes) {
      const small = node.flags.collapsed, [x, y] = node.pos;
      const left = x + within, right = x + (small ? node._collapsed_width : node.size[0]) - within;
      const top = y - title + (small ? 8 : within), bottom = small ? y - 8 : y + node.size[1] - within;
      const edge = [];
      for (let at = left; at <= right; at += 3) edge.push([at, top], [at, bottom]);
      for (let at = top; at <= bottom; at += 3) edge.push([left, at], [right, at]);
      for (const part of canvas.renderedPaths) {
        if (!part.path || !edge.some(point => pen.isPointInStroke(part.path, ...point))) continue;
        const link = graph.getLink(part.linkIds ? [...part.linkIds][0] : part.id);
        const name = id => graph.getNodeById(id)?.title;
        found.add([node.title, name(link?.origin_id), name(link?.target_id)].join(' / '));
      }
    }
  }
  return [...found];
}
"""

# Brings nodes into view with their title bars and returns their box on the page.
SHOW = """
async ({ids, margin, zoom}) => {
  const nodes = ids.map(id => app.graph.getNodeById(id)), canvas = app.canvas, title = LiteGraph.NODE_TITLE_HEIGHT;
  const left = Math.min(...nodes.map(n => n.pos[0])) - margin;
  const top = Math.min(...nodes.map(n => n.pos[1])) - title - margin;
  const right = Math.max(...nodes.map(n => n.pos[0] + n.size[0])) + margin;
  const bottom = Math.max(...nodes.map(n => n.pos[1] + n.size[1])) + margin;
  canvas.deselectAll?.();
  canvas.ds.scale = zoom;
  canvas.ds.offset[0] = 200 - left;
  canvas.ds.offset[1] = 60 - top;
  canvas.setDirty(true, true);
  await new Promise(done => setTimeout(done, 800));
  const box = canvas.canvas.getBoundingClientRect();
  return {
    x: box.x + 200 * zoom, y: box.y + 60 * zoom, width: (right - left) * zoom, height: (bottom - top) * zoom,
  };
}
"""
