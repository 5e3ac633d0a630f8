//! `route`: which hosts and paths lead to an app.

use platform_model::{AppRoute, AppRoutes, Redirect};
use sdk_client::{Client, Tagged};

use crate::args::AppArgs;
use crate::args::hosts::{AddRouteArgs, Place, RouteCommand};
use crate::failure::CliError;
use crate::table::{Table, text};
use crate::terminal::Terminal;

/// Runs a command on an app's routes.
pub(super) async fn run(
    command: &RouteCommand,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    match command {
        RouteCommand::List(app) => {
            let routes = client.routes(&app.tenant, &app.app).await?.value;
            show(&routes, terminal)
        }
        RouteCommand::Set { app, places } => {
            let set = |routes: &mut Vec<_>| {
                *routes = places.iter().map(plain).collect();
                Ok(())
            };
            change(app, set, client, terminal).await
        }
        RouteCommand::Add(args) => {
            let add = |routes: &mut _| {
                add(routes, args);
                Ok(())
            };
            change(&args.app, add, client, terminal).await
        }
        RouteCommand::Remove { app, place } => {
            let remove = |routes: &mut _| remove(routes, app, place);
            change(app, remove, client, terminal).await
        }
    }
}

/// Changes the routes of an app. They are replaced as a whole, so they must be those that were read.
async fn change(
    app: &AppArgs,
    change: impl FnOnce(&mut Vec<AppRoute>) -> Result<(), CliError>,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let Tagged { mut value, tag } = client.routes(&app.tenant, &app.app).await?;
    change(&mut value.routes)?;
    let set = client.set_routes(&app.tenant, &app.app, &value, tag.as_deref());
    show(&set.await?, terminal)
}

fn remove(routes: &mut Vec<AppRoute>, app: &AppArgs, place: &Place) -> Result<(), CliError> {
    let before = routes.len();
    routes.retain(|route| !is_at(route, place));
    if routes.len() < before {
        return Ok(());
    }
    let (app, host, path) = (&app.app, &place.host, &place.path);
    let told = format!("{app} has no route {host}{path}: see `cloister route list {app}`");
    Err(CliError::NoValue(told))
}

/// A route to the app itself.
fn plain(place: &Place) -> AppRoute {
    AppRoute {
        host: place.host.clone(),
        path: place.path.clone(),
        strip_prefix: false,
        redirect: None,
    }
}

fn is_at(route: &AppRoute, place: &Place) -> bool {
    route.host == place.host && route.path == place.path
}

fn add(routes: &mut Vec<AppRoute>, args: &AddRouteArgs) {
    routes.retain(|route| !is_at(route, &args.place));
    let redirect = args.redirect.as_ref().map(|to| Redirect {
        to: to.clone(),
        status: args.status,
        keep_path: !args.drop_path,
    });
    routes.push(AppRoute {
        strip_prefix: args.strip_prefix,
        redirect,
        ..plain(&args.place)
    });
}

fn show(routes: &AppRoutes, terminal: &Terminal) -> Result<(), CliError> {
    if terminal.json {
        return terminal.print_json(routes);
    }
    let mut table = Table::new(terminal, [text("HOST"), text("PATH"), text("LEADS TO")]);
    for route in &routes.routes {
        table.row([
            route.host.to_string(),
            route.path.to_string(),
            leads_to(route),
        ]);
    }
    terminal.print(&table.text())
}

fn leads_to(route: &AppRoute) -> String {
    match &route.redirect {
        Some(redirect) => format!("{} ({})", redirect.to, redirect.status),
        None if route.strip_prefix => "the app, without the path".to_owned(),
        None => "the app".to_owned(),
    }
}

/// A route as one line.
pub(super) fn line(route: &AppRoute) -> String {
    format!("{}{} -> {}", route.host, route.path, leads_to(route))
}
